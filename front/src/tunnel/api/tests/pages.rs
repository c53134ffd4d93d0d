//! Web pages: those that may call, and the one that shows the API.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{Version, description, routes};
use super::{Answer, ROBOT, Scene, head, post, wanted};
use keys::Role;

const LIST: &str = "/api/v3/session/tcp";
const HERE: &str = "http://localhost:3000";
const FOREIGN: &str = "https://evil.example";

fn question(origin: &str) -> String {
    let more = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-auth-token\r\n\
         Access-Control-Request-Private-Network: true\r\n"
    );
    head("OPTIONS", LIST, "", &more)
}

fn from(origin: &str, request: &str) -> String {
    request.replacen("Host: robot\r\n", &format!("Host: robot\r\nOrigin: {origin}\r\n"), 1)
}

#[tokio::test]
async fn a_browser_that_asks_is_told_what_a_page_may() {
    let scene = Scene::new().await;
    let answer = scene.ask(&question(HERE)).await;
    assert_eq!((answer.code, answer.body.as_str()), (200, ""));
    let header = |name: &str| answer.header(name).unwrap_or_default();
    assert_eq!(header("access-control-allow-origin"), HERE);
    assert_eq!(header("access-control-allow-methods"), "GET, POST, OPTIONS, DELETE");
    assert_eq!(header("access-control-allow-headers"), "x-auth-token");
    assert_eq!(header("access-control-max-age"), "86400");
    assert_eq!(header("access-control-allow-private-network"), "true");
    assert_eq!(header("vary"), "origin");
    assert_eq!(scene.ask(&question(FOREIGN)).await.error().0, 403);
    // Who is no browser and asks is told that somebody is here, and no more.
    let bare = scene.ask(&head("OPTIONS", LIST, "", "")).await;
    assert_eq!((bare.code, bare.header("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn a_foreign_page_is_refused_before_anything_happens() {
    let scene = Scene::new().await;
    let open = post(LIST, &scene.token, &wanted("a:1", None));
    for request in [&open, &head("GET", LIST, &scene.token, ""), &head("GET", "/scalar", "", "")] {
        let answer = scene.ask(&from(FOREIGN, request)).await;
        let (code, status, error) = answer.error();
        assert_eq!((code, status.as_str()), (403, "FORBIDDEN"));
        assert!(error.contains(FOREIGN) && error.contains("origins"), "{error}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "it can read nothing");
    }
    assert!(scene.tunnels.list(crate::tunnel::Protocol::Tcp).is_empty());
    // A page that may call reads refusals, too.
    for (request, code) in
        [(open, 200), (head("GET", LIST, "", ""), 401), (head("GET", "/x", &scene.token, ""), 404)]
    {
        let answer = scene.ask(&from(HERE, &request)).await;
        assert_eq!((answer.code, answer.header("access-control-allow-origin")), (code, Some(HERE)));
    }
    let open = Scene::with(&format!("origins = [\"{FOREIGN}\"]\n"), ROBOT, Some(Role::Operate)).await;
    assert_eq!(open.ask(&from(FOREIGN, &head("GET", LIST, &open.token, ""))).await.code, 200);
    assert_eq!(open.ask(&from(HERE, &head("GET", LIST, &open.token, ""))).await.code, 403);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let scene = Scene::new().await;
    let page = scene.get("/scalar", "").await;
    assert_eq!(page.body, scene.get("/swagger-ui", "").await.body);
    let script = scene.get("/api-docs/page.js", "").await;
    for (answer, content) in
        [(&page, "text/html; charset=utf-8"), (&script, "text/javascript; charset=utf-8")]
    {
        assert_eq!((answer.code, answer.header("content-type")), (200, Some(content)));
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
        for elsewhere in ["http:", "https:", "src=\"//", "@import", "innerHTML"] {
            assert!(!answer.body.contains(elsewhere), "{elsewhere}");
        }
    }
    for wanted in ["/api-docs/page.js", "/api-docs/openapi.json"] {
        assert!(page.body.contains(wanted) && scene.get(wanted, "").await.code == 200, "{wanted}");
    }
    // A browser says that it wants HTML, and gets it.
    assert_eq!(scene.ask(&head("GET", "/scalar", "", "Accept: text/html\r\n")).await.code, 200);
}

fn document() -> Value {
    serde_json::from_str(description::DOCUMENT).unwrap()
}

fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    node["$ref"].as_str().map_or(node, |pointer| document.pointer(&pointer[1..]).unwrap())
}

/// Every `$ref` of the document leads somewhere.
fn follow(document: &Value, node: &Value) {
    match node {
        Value::Object(map) => map.iter().for_each(|(key, inner)| match inner.as_str() {
            Some(pointer) if key == "$ref" => {
                assert!(document.pointer(pointer.strip_prefix('#').unwrap()).is_some(), "{pointer}");
            }
            _ => follow(document, inner),
        }),
        Value::Array(items) => items.iter().for_each(|inner| follow(document, inner)),
        _ => {}
    }
}

/// The paths of the document with their bases, and the methods of each.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = document();
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods: BTreeSet<_> = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "servers")
            .map(|key| key.to_uppercase())
            .collect();
        if item.get("servers").is_some() {
            all.insert(path.clone(), methods);
        } else {
            for server in document["servers"].as_array().unwrap() {
                all.insert(format!("{}{path}", server["url"].as_str().unwrap()), methods.clone());
            }
        }
    }
    all
}

fn filled(path: &str) -> String {
    let id = "0".repeat(32);
    let parts = [("{protocol}", "tcp"), ("{ip}", "127.0.0.1"), ("{port}", "1"), ("{id}", &id)];
    parts.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let scene = Scene::new().await;
    follow(&document(), &document());
    let documented = documented();
    let mut served: BTreeSet<String> = Version::ALL
        .iter()
        .flat_map(|version| routes().map(|(path, _)| format!("{}{path}", version.base())))
        .collect();
    // What shows the document is not in it.
    let open = description::routes().into_iter().map(|(path, _)| path.to_owned());
    served.extend(
        open.filter(|path| !path.starts_with("/api-docs") && !["/scalar", "/swagger-ui"].contains(&&**path)),
    );
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), served);
    for (path, methods) in documented {
        let other = scene.ask(&head("PUT", &filled(&path), &scene.token, "")).await;
        assert_eq!(other.error().0, 405, "{path}");
        let allowed = other.header("allow").unwrap().split(',').map(str::trim);
        let allowed: BTreeSet<String> =
            allowed.filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn the_document_has_every_code_and_every_field() {
    let scene = Scene::new().await;
    let document = document();
    let covers = |method: &str, path: &str, answer: &Answer| {
        let described = &document["paths"][path][method]["responses"][answer.code.to_string()];
        assert!(!described.is_null(), "{method} {path}: {answer:?}");
        let described = resolve(&document, described);
        let content = &described["content"]["application/json"]["schema"];
        assert_eq!(content.is_null(), answer.body.is_empty(), "{method} {path}: {answer:?}");
        let mut schema = resolve(&document, content);
        let json: Value =
            if answer.body.is_empty() { return } else { serde_json::from_str(&answer.body).unwrap() };
        let mut fields = vec![json.clone()];
        if schema["type"] == "array" {
            schema = resolve(&document, &schema["items"]);
            fields = json.as_array().unwrap().clone();
        }
        for json in fields {
            let known = &schema["properties"];
            assert!(json.as_object().unwrap().keys().all(|key| known.get(key).is_some()), "{path}: {json}");
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            assert!(required.iter().all(|key| json.get(key.as_str().unwrap()).is_some()), "{path}: {json}");
        }
    };
    let list = "/session/{protocol}";
    let (place, stats) = ("/session/{protocol}/{ip}/{port}", "/session/stats/{protocol}/{ip}/{port}");
    for base in ["/api/v3", "/api/v4"] {
        let url = |path: &str| format!("{base}{}", filled(path));
        let opened = scene.post(&url(list), &wanted("a:1", None)).await;
        covers("post", list, &opened);
        let example =
            &document["paths"][list]["post"]["requestBody"]["content"]["application/json"]["example"];
        let mut example = example.clone();
        example["listenHost"] = "127.0.0.1".into();
        assert_eq!(scene.post(&url(list), &example.to_string()).await.code, 200, "the example works");
        let port = opened.address().port();
        covers("get", list, &scene.get(&url(list), &scene.token).await);
        let at = |path: &str| {
            url(path).replace("/1", "/PORT").replace("/PORT27", "/127").replace("PORT", &port.to_string())
        };
        covers("get", stats, &scene.get(&at(stats), &scene.token).await);
        for request in [
            post(&url(list), "", "{}"),
            post(&url(list), &scene.token, "{bad"),
            post(&url(list), &scene.token, "{}"),
            post(&url(list), &scene.token, &wanted("a:1", Some(&opened.address().to_string()))),
            post(&url(list), &scene.token, &" ".repeat(65 * 1024)),
            head("POST", &url(list), &scene.token, ""),
            head("POST", &url(list), &scene.token, "Accept: text/html\r\n"),
            from(FOREIGN, &post(&url(list), &scene.token, "{}")),
        ] {
            covers("post", list, &scene.ask(&request).await);
        }
        covers("get", list, &scene.get(&format!("{base}/session/sctp"), &scene.token).await);
        covers("get", stats, &scene.get(&url(stats), &scene.token).await);
        covers("delete", place, &scene.delete(&at(place)).await);
        covers("delete", place, &scene.delete(&at(place)).await);
        covers("delete", place, &scene.delete(&format!("{base}/session/tcp/x/1")).await);
        let config = "/session/config/{id}";
        covers("get", config, &scene.get(&url(config), &scene.token).await);
        covers("post", config, &scene.post(&url(config), "{}").await);
        covers("post", config, &scene.post(&url(config), r#"{"responseBuffer":"?"}"#).await);
        covers("post", config, &scene.post(&format!("{base}/session/config/x"), "{}").await);
    }
    for path in ["/startedz", "/readyz", "/healthyz"] {
        covers("get", path, &scene.get(path, "").await);
    }
}
