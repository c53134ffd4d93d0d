//! What real clients of hoprd sent, byte for byte, and what its server answers.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, UdpSocket};

use keys::Role;

use super::{Answer, NODE, RECORDED_TOKEN, ROBOT, Scene, head, post, wanted};

const CLIENTS: &str = include_str!("../../../../tests/vectors/hopr_clients.txt");
const SERVER: &str = include_str!("../../../../tests/vectors/hopr_server.txt");
/// Ports that the requests name.
const PORTS: [u16; 5] = [10_000, 10_001, 10_002, 25_000, 26_006];
/// Ports of the recording that Linux gives to outgoing connections (32768 to 60999), any of which may have one for
/// longer than a test can wait, and what is sent instead: as many bytes.
const ELSEWHERE: [(&str, &str); 2] = [("50000", "25000"), ("60006", "26006")];
/// What the robots of these tests choose ports from.
const CHOSEN: [Range<u64>; 2] = [25_000..25_200, 50_200..50_400];

/// A recorded request and what it was answered.
#[derive(Debug)]
struct Exchange {
    step: String,
    request: Vec<u8>,
    code: u16,
    body: String,
}

/// Every client with its requests, in order.
fn clients() -> Vec<(&'static str, Vec<Exchange>)> {
    let client = |part: &'static str| {
        let (title, rest) = part.split_once('\n').unwrap();
        let (mut exchanges, mut step, mut request) = (Vec::new(), "", String::new());
        for line in rest.lines() {
            if let Some(name) = line.strip_prefix("## STEP ") {
                step = name;
            } else if let Some(body) = line.strip_prefix(">>> BODY b'") {
                request += body.strip_suffix('\'').unwrap();
            } else if let Some(text) = line.strip_prefix(">>>") {
                request += &format!("{}\r\n", text.strip_prefix(' ').unwrap_or(text));
            } else if let Some(answer) = line.strip_prefix("<<< ") {
                let (code, body) = answer.split_once(' ').unwrap_or((answer, ""));
                let request = std::mem::take(&mut request).into_bytes();
                let (step, code) = (step.to_owned(), code.parse().unwrap());
                exchanges.push(Exchange { step, request, code, body: body.to_owned() });
            }
        }
        (title, exchanges)
    };
    CLIENTS.split("#### CLIENT ").skip(1).map(client).collect()
}

/// Where the recording's stand-in was another than hoprd, or Lanyard is, with the reason.
fn instead(client: &str, step: &str, nth: usize) -> Option<(u16, &'static str)> {
    Some(match (client.split(':').next().unwrap(), step) {
        // A sealed target is for the key of a node, of which there is none: refused, and so not there to be closed.
        ("1", "create v6") => (422, r#"{"status":"UNKNOWN_FAILURE"}"#),
        ("1", "close v6") => (404, r#"{"status":"INVALID_INPUT"}"#),
        // Nobody has configured that target; the stand-in had it time out.
        ("1", "create dict body") => (422, r#"{"status":"UNKNOWN_FAILURE"}"#),
        // The real server says 400, see "post empty enum" and "delete bad proto" of the server's own recording.
        ("1", "create w/ model RoutingOptions()/SessionTargetSpec() (docs)") => (400, ""),
        ("1", "close with IpProtocol() instance (as in docs)" | "close port 70000") => (400, ""),
        // The real server takes "TCP" here, see "delete UPPER proto ok"; after that there is nothing left to close.
        ("1", "close UPPERCASE proto") => (204, ""),
        ("1", "close port str") => (404, r#"{"status":"INVALID_INPUT"}"#),
        // The real server knows no capability in small letters, see "post bad capability".
        ("4", _) if nth == 6 => (422, ""),
        _ => return None,
    })
}

/// Whether `ours` has all of `theirs`, whatever it has besides. A port that nobody asked for is another here.
fn has(ours: &Value, theirs: &Value) -> bool {
    let is_chosen =
        |port: &Value, chosen: Range<u64>| port.as_u64().is_some_and(|port| chosen.contains(&port));
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => theirs.iter().all(|(key, theirs)| {
            let ours = ours.get(key).unwrap_or(&Value::Null);
            let is_any = || {
                key == "port"
                    && is_chosen(theirs, 25_000..60_000)
                    && CHOSEN.iter().any(|range| is_chosen(ours, range.clone()))
            };
            theirs.is_null() || has(ours, theirs) || is_any()
        }),
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len()
                && theirs.iter().all(|theirs| ours.iter().any(|ours| has(ours, theirs)))
        }
        _ => ours == theirs,
    }
}

/// The text with ports that stay free.
fn elsewhere(text: &str) -> String {
    ELSEWHERE.iter().fold(text.to_owned(), |text, (recorded, sent)| text.replace(recorded, sent))
}

fn check(what: &str, answer: &Answer, code: u16, body: &str) {
    assert_eq!(answer.code, code, "{what}: {answer:?}");
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Array(mut theirs)) if what.contains("list") => {
            // A listener with a sealed target was never opened.
            theirs.retain(|theirs| theirs["target"] != "$$AAEC");
            assert!(has(&answer.json(), &theirs.clone().into()), "{what}: {answer:?} for {theirs:?}");
        }
        Ok(theirs) => assert!(has(&answer.json(), &theirs), "{what}: {answer:?} for {theirs}"),
        Err(_) if code == 204 => assert_eq!(answer.body, "", "{what}"),
        // hoprd has plain text here, or nothing.
        Err(_) => drop(answer.error()),
    }
    if answer.code >= 400 {
        answer.error();
    }
}

/// Other programs of this machine may have one of the ports for a moment.
async fn until_free() {
    for port in PORTS {
        let free = async || {
            let address = ("127.0.0.1", port);
            TcpListener::bind(address).await.is_ok() && UdpSocket::bind(address).await.is_ok()
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !free().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("port {port}, which recorded requests name, stays taken"));
    }
}

#[tokio::test]
async fn clients_of_hoprd_get_what_they_got_there() {
    let recorded = clients();
    assert_eq!(recorded.iter().map(|(_, exchanges)| exchanges.len()).collect::<Vec<_>>(), [26, 7, 7, 7]);
    for (client, exchanges) in recorded {
        // Some close a port that was chosen for them in the recording: the first of this range.
        let robot = ROBOT.replace("50200-50399", "25000-25199");
        let scene = Scene::with("", &robot, Some(Role::Operate)).await;
        until_free().await;
        // One connection for all of it, as these clients keep theirs.
        let mut connection = scene.client().await;
        for (nth, Exchange { step, request, code, body }) in exchanges.into_iter().enumerate() {
            let request = String::from_utf8(request).unwrap().replace(RECORDED_TOKEN, &scene.token);
            let (request, body) = (elsewhere(&request), elsewhere(&body));
            let answer = connection.send(request.as_bytes()).await;
            let (code, body) = instead(client, &step, nth).unwrap_or((code, &body));
            let step = if request.starts_with("GET") { format!("{step} list") } else { step };
            check(&format!("client {client}: {step} ({nth})"), &answer, code, body);
        }
        scene.tunnels.close_all().await;
    }
}

/// What hoprd's server answered to a request of that name: code and body.
fn answered() -> HashMap<&'static str, (u16, String)> {
    let answer = |part: &'static str| {
        let (name, rest) = part.split_once('\n').unwrap();
        let mut lines = rest.lines().filter_map(|line| line.strip_prefix("   < "));
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let body = lines.skip_while(|line| !line.is_empty()).skip(1).collect::<String>();
        (name, (code, body))
    };
    SERVER.split("## ").skip(1).map(answer).collect()
}

/// The requests of that recording; their bodies in full, where it has cut them.
fn asked(token: &str) -> Vec<(&'static str, String)> {
    let list = "/api/v3/session/tcp";
    let get = |path: &str, more: &str| head("GET", path, token, more);
    let bare = |more: &str| head("GET", "/api/v3/session/udp", "", more);
    let ask = |body: &str| post(list, token, &body.replace("NODE", NODE));
    let close = |rest: &str| head("DELETE", &format!("/api/v3/session/{rest}"), token, "");
    let untyped = |more: &str| {
        let body = r#"{"destination":"x"}"#;
        head("POST", list, token, &format!("{more}Content-Length: {}\r\n", body.len())) + body
    };
    vec![
        ("list ok", get(list, "")),
        ("list no auth", head("GET", list, "", "")),
        ("list bearer", bare(&format!("Authorization: Bearer {token}\r\n"))),
        ("list bearer lowercase scheme", bare(&format!("Authorization: bearer {token}\r\n"))),
        ("X-Auth-Token: Bearer tok", bare(&format!("X-Auth-Token: Bearer {token}\r\n"))),
        ("bad protocol", get("/api/v3/session/sctp", "")),
        ("UPPER protocol GET", get("/api/v3/session/TCP", "")),
        ("Accept text/html -> 406", get(list, "Accept: text/html\r\n")),
        ("Accept absent", get(list, "")),
        ("Accept application/json;q=0.5, text/*", get(list, "Accept: text/html, application/json;q=0.9\r\n")),
        ("unknown path (authed)", get("/api/v3/session/tcp/x", "")),
        ("double slash", get("//api/v3/session/tcp", "")),
        ("trailing slash", get("/api/v3/session/tcp/", "")),
        ("PUT -> 405", head("PUT", list, token, "")),
        ("HEAD list", head("HEAD", list, token, "")),
        (
            "OPTIONS preflight (no auth)",
            head(
                "OPTIONS",
                list,
                "",
                "Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: x-auth-token,content-type\r\n",
            ),
        ),
        ("post ok", ask(&wanted("localhost:8080", None))),
        (
            "post ok fixed port + unknown field ignored",
            ask(
                r#"{"destination":"NODE","path":{"Hops":1},"target":{"Service":0},"listenHost":"127.0.0.1:18311","bogus":1}"#,
            ),
        ),
        (
            "post conflict",
            ask(
                r#"{"destination":"NODE","path":{"Hops":1},"target":{"Service":0},"listenHost":"127.0.0.1:18311"}"#,
            ),
        ),
        (
            "post v6",
            ask(
                r#"{"destination":"NODE","path":{"IntermediatePath":[]},"target":{"Plain":"a:1"},"listenHost":"[::1]:18312"}"#,
            ),
        ),
        ("post unbindable ip", ask(&wanted("a:1", Some("203.0.113.1:99")))),
        ("post garbage listenHost -> default", ask(&wanted("a:1", Some("garbage")))),
        ("post malformed json", ask("{bad")),
        ("post missing target", ask(r#"{"destination":"NODE","path":{"Hops":0}}"#)),
        ("post empty enum (docs models)", ask(r#"{"destination":"NODE","path":{},"target":{}}"#)),
        ("post target as string", ask(r#"{"destination":"NODE","path":{"Hops":0},"target":"localhost:80"}"#)),
        (
            "post bad capability",
            ask(
                r#"{"destination":"NODE","path":{"Hops":0},"target":{"Plain":"a:1"},"capabilities":["segmentation"]}"#,
            ),
        ),
        (
            "post NoRateControl (v4 cap) to v3",
            ask(
                r#"{"destination":"NODE","path":{"Hops":0},"target":{"Plain":"a:1"},"capabilities":["NoRateControl"]}"#,
            ),
        ),
        (
            "post bad destination",
            ask(r#"{"destination":"robot","path":{"Hops":0},"target":{"Plain":"a:1"}}"#),
        ),
        ("post no port in target", ask(&wanted("a", None))),
        ("post no content-type", untyped("")),
        ("post form content-type", untyped("Content-Type: application/x-www-form-urlencoded\r\n")),
        (
            "post camel v4 body to v3",
            ask(
                r#"{"destination":"0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75","forwardPath":{"Hops":0},"returnPath":{"Hops":0},"target":{"Plain":"a:1"}}"#,
            ),
        ),
        ("list after", get(list, "")),
        ("delete v6 pct", close("tcp/%3A%3A1/18312")),
        (
            "delete UPPER proto ok",
            head("DELETE", "/api/v3/session/TCP/127.0.0.1/18311", token, "Content-Length: 2\r\n") + "{}",
        ),
        ("delete again", close("tcp/127.0.0.1/18311")),
        ("delete bad ip", close("tcp/localhost/1")),
        ("delete bad proto", close("%7B%7D/127.0.0.1/0")),
        ("delete port 70000", close("tcp/127.0.0.1/70000")),
        ("delete port -1", close("tcp/127.0.0.1/-1")),
        ("delete all (0)", close("tcp/127.0.0.1/0")),
        ("delete 0.0.0.0/0 none", close("tcp/0.0.0.0/0")),
        ("gzip list", get(list, "Accept-Encoding: gzip, deflate\r\n")),
    ]
}

#[tokio::test]
async fn every_answer_is_the_servers_or_its_error_as_json() {
    let scene = Scene::new().await;
    let (answered, asked) = (answered(), asked(&scene.token));
    assert_eq!(answered.len(), asked.len());
    let mut connection = scene.client().await;
    for (name, request) in asked {
        let (code, body) = answered.get(name).unwrap_or_else(|| panic!("{name} is not in the recording"));
        let answer = connection.send(request.as_bytes()).await;
        match name {
            "HEAD list" => assert_eq!((answer.code, answer.body.as_str()), (200, "")),
            "OPTIONS preflight (no auth)" => assert_eq!(answer.code, 200),
            // Its target was sealed there.
            "post v6" => {
                check(name, &answer, 200, r#"{"target":"a:1","protocol":"tcp","ip":"::1","port":18312}"#)
            }
            "list after" => assert_eq!(answer.json().as_array().unwrap().len(), 4, "{answer:?}"),
            // Deviations: what cannot be read is refused, and both versions' bodies are understood.
            "post garbage listenHost -> default" => assert_eq!(answer.error().0, 422),
            "post camel v4 body to v3" => assert_eq!(answer.code, 200),
            "post unbindable ip" | "post no port in target" => {
                check(name, &answer, *code, r#"{"status":"UNKNOWN_FAILURE"}"#);
            }
            _ if body.is_empty() || body.starts_with(['[', '{']) => check(name, &answer, *code, body),
            _ => {
                check(name, &answer, *code, "");
                // Where the words are the framework's they are the same; where they are hoprd's, ours say more.
                let ours = answer.error().2;
                let begins =
                    ["post bad", "post NoRate", "delete bad proto"].iter().any(|own| name.starts_with(own));
                let common = if begins { body.split(": ").next().unwrap() } else { body.as_str() };
                assert!(ours.starts_with(common), "{name}: {ours:?} for {body:?}");
            }
        }
        if name == "PUT -> 405" {
            let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["GET", "HEAD", "POST"]);
        }
    }
    scene.tunnels.close_all().await;
}
