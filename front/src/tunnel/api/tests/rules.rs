//! Who may do what, and what becomes of it.

use std::time::Duration;

use keys::Role;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Answer, NODE, ROBOT, Scene, head, post, wanted};

const LIST: &str = "/api/v3/session/tcp";
/// The file of keys is looked at each second.
const NOTICED: Duration = Duration::from_secs(10);

async fn until<F: AsyncFnMut() -> bool>(mut is_so: F) {
    let waited = tokio::time::timeout(NOTICED, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it never comes to that");
}

#[tokio::test]
async fn who_has_no_token_learns_nothing() {
    let scene = Scene::new().await;
    let bad = "{bad";
    for request in [
        head("GET", LIST, "", ""),
        head("GET", "/api/v3/session/sctp", "", ""),
        head("GET", "/nothing", "", ""),
        head("PUT", LIST, "", ""),
        head("DELETE", "/api/v3/session/tcp/x/y", "", ""),
        head("GET", LIST, "", "Accept: text/html\r\n"),
        post(LIST, "", bad),
        post(LIST, "x.y", &wanted("a:1", None)),
        post(LIST, &format!("Bearer {}", scene.token), &wanted("a:1", None)),
    ] {
        let (code, status, _) = scene.ask(&request).await.error();
        assert_eq!((code, status.as_str()), (401, "UNAUTHORIZED"), "{request}");
    }
    let bearer = format!("Authorization: Bearer {}\r\n", scene.token);
    assert_eq!(scene.ask(&head("GET", LIST, "", &bearer)).await.code, 200);
    assert_eq!(scene.ask(&head("GET", LIST, "x.y", &bearer)).await.code, 200, "one good token is enough");
    for open in ["/startedz", "/readyz", "/healthyz"] {
        assert_eq!(scene.get(open, "").await.json(), json!({ "status": "OK" }));
    }
}

#[tokio::test]
async fn without_keys_everybody_is_let_in() {
    let scene = Scene::with("", ROBOT, None).await;
    assert_eq!(scene.get(LIST, "").await.code, 200);
    assert_eq!(scene.get(LIST, "whatever").await.code, 200);
    assert_eq!(scene.ask(&post(LIST, "", &wanted("a:1", None))).await.code, 200);
}

#[tokio::test]
async fn a_role_is_a_limit() {
    let scene = Scene::with("", ROBOT, Some(Role::Observe)).await;
    assert_eq!(scene.get(LIST, &scene.token).await.code, 200);
    for request in [
        post(LIST, &scene.token, &wanted("a:1", None)),
        head("DELETE", "/api/v3/session/tcp/127.0.0.1/0", &scene.token, ""),
    ] {
        let (code, status, error) = scene.ask(&request).await.error();
        assert_eq!((code, status.as_str()), (403, "FORBIDDEN"));
        assert!(error.contains("it takes the role \"operate\""), "{error}");
    }
    assert!(scene.tunnels.list(crate::tunnel::Protocol::Tcp).is_empty());
}

#[tokio::test]
async fn who_guesses_is_told_to_wait() {
    let scene = Scene::new().await;
    let (id, _) = scene.token.split_once('.').unwrap();
    let wrong = format!("{id}.wrong");
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(scene.get(LIST, &wrong).await);
    }
    let looked_at = answers.iter().take_while(|answer| answer.code == 401).count();
    assert!((10..=12).contains(&looked_at), "{looked_at} guesses were looked at");
    let last = answers.last().unwrap();
    assert_eq!(last.error().0, 429);
    assert!(last.header("retry-after").unwrap().parse::<u64>().unwrap() <= 7);
}

#[tokio::test]
async fn a_listener_goes_with_the_key_of_who_opened_it() {
    let scene = Scene::new().await;
    let (other, token) = scene.add(Role::Operate).await;
    let kept = scene.open("tcp").await;
    let lost = scene.ask(&post(LIST, &token, &wanted("a:1", None))).await.address();
    scene.revoke(other);
    let ports = async || -> Vec<u64> {
        let listed = scene.get(LIST, &scene.token).await.json();
        listed.as_array().unwrap().iter().map(|listed| listed["port"].as_u64().unwrap()).collect()
    };
    until(async || ports().await == [u64::from(kept.port())]).await;
    assert!(TcpStream::connect(lost).await.is_err());
    assert_eq!(scene.get(LIST, &token).await.code, 401);
    let stats =
        scene.get(&format!("/api/v3/session/stats/tcp/127.0.0.1/{}", lost.port()), &scene.token).await;
    assert_eq!(stats.json()["state"], "closed");
    assert!(stats.json()["reason"].as_str().unwrap().contains("key"), "{stats:?}");
}

/// A target that takes connections and never reads, with a client that sends: closing does not wait for either.
#[tokio::test]
async fn impatient_clients_are_answered_whatever_the_target_does() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let robot = ROBOT.replace("127.0.0.1:29536", &format!("127.0.0.1:{port}"));
    let scene = Scene::with("", &robot, Some(Role::Operate)).await;
    // Each request here has a second, see `Client::send`.
    let opened = scene.post(LIST, &wanted(&format!("127.0.0.1:{port}"), None)).await.address();
    let mut client = TcpStream::connect(opened).await.unwrap();
    let held = target.accept().await.unwrap();
    let sending = tokio::spawn(async move { while client.write_all(&[0; 64 * 1024]).await.is_ok() {} });
    until(async || active(&scene, "tcp").await.len() == 1).await;
    let closed = scene.delete(&format!("/api/v3/session/tcp/127.0.0.1/{}", opened.port())).await;
    assert_eq!(closed.code, 204);
    tokio::time::timeout(NOTICED, sending).await.expect("the client goes on sending").unwrap();
    drop(held);
    // A target that is not there keeps nobody waiting, either.
    assert_eq!(scene.post(LIST, &wanted("localhost:8080", None)).await.code, 200);
}

/// The sessions of all listeners of a protocol.
async fn active(scene: &Scene, protocol: &str) -> Vec<String> {
    let listed = scene.get(&format!("/api/v4/session/{protocol}"), &scene.token).await.json();
    let clients =
        listed.as_array().unwrap().iter().flat_map(|listed| listed["activeClients"].as_array().unwrap());
    clients.map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn both_versions_are_understood_and_each_answers_in_its_words() {
    let scene = Scene::new().await;
    let address = "0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75";
    let four = json!({
        "destination": address, "forwardPath": { "Hops": 1 }, "returnPath": { "IntermediatePath": [address] },
        "target": { "Plain": "localhost:8080" }, "responseBuffer": "4MiB", "maxSurbUpstream": "2 Mb/s",
        "capabilities": ["Segmentation", "NoRateControl"], "sessionPool": 2, "flowControl": "clean",
    });
    let three = wanted("localhost:8080", None);
    let keys =
        |answer: &Answer| -> Vec<String> { answer.json().as_object().unwrap().keys().cloned().collect() };
    let short = ["ip", "path", "port", "protocol", "target"];
    assert_eq!(keys(&scene.post("/api/v3/session/tcp", &three).await), short);
    let answer = scene.post("/api/v4/session/tcp", &four.to_string()).await.json();
    let expected = json!({
        "target": "localhost:8080", "protocol": "tcp", "ip": "127.0.0.1", "port": answer["port"],
        "path": { "Hops": 1 }, "forwardPath": { "Hops": 1 }, "returnPath": { "IntermediatePath": [address] },
        "destination": address, "hoprMtu": 1_002, "surbLen": 398, "activeClients": [], "maxClientSessions": 256,
        "responseBuffer": "4MiB", "maxSurbUpstream": "2 Mb/s", "sessionPool": 0,
    });
    assert_eq!(answer, expected);
    let mut without = four;
    without["capabilities"] = json!(["NoDelay", "Retransmission", "RetransmissionAckOnly"]);
    assert_eq!(keys(&scene.post("/api/v3/session/tcp", &without.to_string()).await), short);
    assert_eq!(
        scene.post("/api/v4/session/udp", &wanted("localhost:20000", None)).await.json()["maxClientSessions"],
        1
    );
    for (base, expected) in [("/api/v3", 5), ("/api/v4", 15)] {
        let listed = scene.get(&format!("{base}/session/tcp"), &scene.token).await.json();
        let listed = listed.as_array().unwrap();
        assert!(listed.len() == 3 && listed.iter().all(|one| one.as_object().unwrap().len() == expected));
    }
}

#[tokio::test]
async fn a_session_has_settings_and_its_listener_has_stats() {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let robot = ROBOT.replace("127.0.0.1:20000", &format!("127.0.0.1:{port}"));
    let scene = Scene::with("", &robot, Some(Role::Operate)).await;
    let mut body: Value = serde_json::from_str(&wanted("localhost:20000", Some("127.0.0.1"))).unwrap();
    body["responseBuffer"] = json!("2 MB");
    let opened = scene.post("/api/v4/session/udp", &body.to_string()).await.address();
    let place = format!("udp/127.0.0.1/{}", opened.port());
    let stats = async |state: &str| {
        let stats = scene.get(&format!("/api/v4/session/stats/{place}"), &scene.token).await.json();
        assert_eq!(stats["state"], state, "{stats}");
        stats
    };
    let before = stats("waiting").await;
    assert_eq!((&before["lastActivityAtMs"], &before["links"]), (&Value::Null, &json!(0)));
    assert_eq!((&before["target"], &before["port"]), (&json!("localhost:20000"), &json!(opened.port())));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"hello", opened).await.unwrap();
    let (mut buffer, mut from) = ([0; 16], None);
    until(async || {
        let got = tokio::time::timeout(Duration::from_millis(200), target.recv_from(&mut buffer)).await;
        from = got.ok().and_then(Result::ok).or(from.take());
        from.is_some()
    })
    .await;
    target.send_to(b"you there", from.unwrap().1).await.unwrap();
    client.recv(&mut buffer).await.unwrap();
    let after =
        stats(if scene.tunnels.settings().targets[2].motors.is_empty() { "waiting" } else { "active" }).await;
    assert_eq!((&after["bytesToTarget"], &after["bytesToClient"]), (&json!(5), &json!(9)));
    assert_eq!((&after["links"], &after["activeLinks"], &after["trips"]), (&json!(1), &json!(1), &json!(0)));
    let (last, created) =
        (after["lastActivityAtMs"].as_u64().unwrap(), after["createdAtMs"].as_u64().unwrap());
    assert!(last >= created && after["idleMs"].as_u64() <= after["uptimeMs"].as_u64(), "{after}");

    let sessions = active(&scene, "udp").await;
    let [id] = &sessions[..] else { panic!("{sessions:?}") };
    let config = format!("/api/v4/session/config/{id}");
    let get = async || scene.get(&config, &scene.token).await.json();
    assert_eq!(get().await, json!({ "responseBuffer": "2 MB", "maxSurbUpstream": null }));
    let set = scene.post(&config, r#"{"responseBuffer":"1 MiB","maxSurbUpstream":"2 Mbps"}"#).await;
    assert_eq!((set.code, set.body.as_str()), (204, ""));
    assert_eq!(get().await, json!({ "responseBuffer": "1 MiB", "maxSurbUpstream": "2 Mbps" }));
    assert_eq!(scene.post(&config, r#"{"responseBuffer":"lots"}"#).await.error().0, 422);
    let unknown = format!("/api/v4/session/config/{}", "0".repeat(32));
    for (path, code, status) in [
        (unknown.as_str(), 404, "SESSION_NOT_FOUND"),
        ("/api/v4/session/config/abc", 400, "INVALID_SESSION_ID"),
    ] {
        for answer in [scene.get(path, &scene.token).await, scene.post(path, "{}").await] {
            let answer = answer.error();
            assert_eq!((answer.0, answer.1.as_str()), (code, status), "{path}");
        }
    }
    assert_eq!(scene.delete(&format!("/api/v4/session/{place}")).await.code, 204);
    assert_eq!(scene.get(&config, &scene.token).await.error().0, 404);
    stats("closed").await;
    assert_eq!(scene.get("/api/v3/session/stats/udp/127.0.0.1/1", &scene.token).await.error().0, 404);
}

#[tokio::test]
async fn port_0_closes_all_of_an_address_and_a_protocol() {
    let scene = Scene::new().await;
    let (one, two, datagrams) = (scene.open("tcp").await, scene.open("tcp").await, scene.open("udp").await);
    let other = scene.post(LIST, &wanted("localhost:8080", Some("::1"))).await.address();
    assert_ne!(one, two);
    assert_eq!(scene.delete("/api/v3/session/tcp/0.0.0.0/0").await.code, 404);
    assert_eq!(scene.delete("/api/v3/session/Tcp/127.0.0.1/0").await.code, 204);
    assert_eq!(scene.delete("/api/v3/session/tcp/127.0.0.1/0").await.error().0, 404);
    let left =
        |protocol| scene.tunnels.list(protocol).iter().map(|listed| listed.address).collect::<Vec<_>>();
    assert_eq!(left(crate::tunnel::Protocol::Tcp), [other]);
    assert_eq!(left(crate::tunnel::Protocol::Udp), [datagrams]);
    assert!(TcpStream::connect(one).await.is_err() && TcpStream::connect(two).await.is_err());
    assert_eq!(scene.delete(&format!("/api/v3/session/tcp/%3A%3A1/{}", other.port())).await.code, 204);
    // The address is free again at once.
    let again = scene.post(LIST, &wanted("localhost:8080", Some(&one.to_string()))).await;
    assert_eq!(again.address(), one);
    let taken = scene.post(LIST, &wanted("localhost:8080", Some(&one.to_string()))).await.error();
    assert_eq!((taken.0, taken.1.as_str()), (409, "LISTEN_HOST_ALREADY_USED"));
    assert!(taken.2.contains(&one.to_string()) && !taken.2.contains(NODE), "{taken:?}");
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    let both = head("GET", LIST, &scene.token, "") + &head("GET", "/nothing", &scene.token, "");
    client.0.write_all(both.as_bytes()).await.unwrap();
    let mut read = vec![0; 4_096];
    let mut text = String::new();
    while !text.contains("NOT_FOUND") {
        let count = client.0.read(&mut read).await.unwrap();
        text += std::str::from_utf8(&read[..count]).unwrap();
    }
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("HTTP/1.1 404"), "{text}");
}

#[tokio::test]
async fn a_body_that_comes_after_its_head_does_not_cost_the_connection() {
    let scene = Scene::new().await;
    let mut client = scene.client().await;
    client.0.set_nodelay(true).unwrap();
    let body = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let strange = format!("{}x", scene.token);
    for round in 0..300 {
        for (method, path, token, code) in [
            ("DELETE", "/api/v3/session/tcp/127.0.0.1/1025", &scene.token, 404),
            ("GET", "/api/v3/session/tcp", &scene.token, 200),
            ("GET", "/api/v3/session/sctp", &scene.token, 400),
            ("PUT", "/api/v3/session/tcp", &scene.token, 405),
            ("GET", "/api/v3/nothing", &scene.token, 404),
        ] {
            client.0.write_all(head(method, path, token, body).as_bytes()).await.unwrap();
            // Sometimes the answer could be ready by now.
            for _ in 0..round % 3 {
                tokio::task::yield_now().await;
            }
            assert_eq!(client.send(b"{}").await.code, code, "{method} {path}, round {round}");
        }
    }
    client.0.write_all(head("GET", "/api/v3/session/tcp", &strange, body).as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(client.send(b"{}").await.code, 401);
    assert_eq!(client.send(head("GET", "/api/v3/session/tcp", &scene.token, "").as_bytes()).await.code, 200);
}
