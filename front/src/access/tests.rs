//! Keys, logins and the gate together, on files of their own.

use std::convert::Infallible;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use keys::{Draft, Role, Secret};
use tonic::Code;
use tonic::body::Body;
use tower::{Service as _, service_fn};

use super::*;
use crate::gate::Gate;
use crate::sessions::Entity;
use crate::transport::Connection;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const SET_POWER: &str = "/viam.component.motor.v1.MotorService/SetPower";
const GET_POSITION: &str = "/viam.component.motor.v1.MotorService/GetPosition";
const RESET: &str = "/lanyard.v1.LanyardService/Reset";

/// A front's access over a file of its own.
struct Scene {
    folder: PathBuf,
    access: Arc<Access>,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lanyard-access-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = KeysFile::at(&folder.join("keys.toml"));
        let tokens = Tokens::new(Duration::from_secs(60)).unwrap();
        let access = Arc::new(Access::of(file, Keys::none(), tokens));
        Self { folder, access }
    }

    fn add(&self, name: &str, role: Role) -> (KeyId, Secret) {
        let (key, secret) = self.access.file.add(&Draft::new(name, role, None).unwrap(), None).unwrap();
        self.access.reload();
        (key.id, secret)
    }

    fn revoke(&self, id: KeyId) {
        self.access.file.revoke(id).unwrap();
        self.access.reload();
    }

    fn token(&self, (id, secret): &(KeyId, Secret)) -> String {
        self.access.log_in(&id.to_string(), secret.reveal(), HERE).unwrap()
    }

    fn caller(&self, token: &str) -> Result<Caller, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        self.access.caller(&headers, None)
    }

    /// What the gate says to a call, with this behind `authorization` if anything; the caller as known behind it.
    async fn call(&self, path: &str, authorization: Option<&str>) -> Result<Caller, Status> {
        self.passed(path, authorization).await.map(|(caller, _)| caller)
    }

    /// The same, and what has become of `authorization`.
    async fn passed(
        &self,
        path: &str,
        authorization: Option<&str>,
    ) -> Result<(Caller, Option<HeaderValue>), Status> {
        let inner = service_fn(|request: Request<Body>| async move {
            let mut response = Response::new(Body::empty());
            let caller = Caller::of(request.extensions()).unwrap().clone();
            response.extensions_mut().insert((caller, request.headers().get(AUTHORIZATION).cloned()));
            Ok::<_, Infallible>(response)
        });
        let mut request = Request::post(path).body(Body::empty()).unwrap();
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        }
        let response = Gate::new(inner, Arc::clone(&self.access)).call(request).await.unwrap();
        match Status::from_header_map(response.headers()) {
            Some(status) => Err(status),
            None => Ok(response.extensions().get::<(Caller, Option<HeaderValue>)>().unwrap().clone()),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[tokio::test]
async fn without_a_key_everybody_may_do_everything() {
    let scene = Scene::new("open");
    for path in [SET_POWER, GET_POSITION, RESET] {
        let caller = scene.call(path, None).await.unwrap();
        assert!(caller.entity.is(&Caller::anonymous().entity), "{path}");
    }
    // Somebody else's token, as for a server behind this one, is none of ours, and goes on to it.
    let (_, token) = scene.passed(SET_POWER, Some("Bearer x")).await.unwrap();
    assert_eq!(token.unwrap(), "Bearer x");
}

#[tokio::test]
async fn with_a_key_nothing_goes_without_a_token() {
    let scene = Scene::new("closed");
    let key = scene.add("panel", Role::Administer);
    let token = scene.token(&key);
    let good = format!("Bearer {token}");
    for wrong in
        [None, Some(""), Some("Bearer "), Some(token.as_str()), Some("Basic x"), Some("Bearer x.y.z")]
    {
        for path in
            [SET_POWER, GET_POSITION, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/"]
        {
            let refusal = scene.call(path, wrong).await.unwrap_err();
            assert_eq!(
                (refusal.code(), refusal.message()),
                (Code::Unauthenticated, "authentication required")
            );
        }
    }
    let (caller, left) = scene.passed(SET_POWER, Some(&good)).await.unwrap();
    assert!(left.is_none(), "a token of ours goes on to others");
    assert!(caller.entity.is(&Entity::new(&key.0.to_string())));
    assert!(scene.call(RESET, Some(&good)).await.is_ok());
    for open in ["/grpc.health.v1.Health/Check", "/proto.rpc.webrtc.v1.SignalingService/Call"] {
        assert!(scene.call(open, None).await.is_ok(), "{open}");
    }
    let twice = {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, good.parse().unwrap());
        headers.append(AUTHORIZATION, good.parse().unwrap());
        scene.access.caller(&headers, None)
    };
    assert_eq!(twice.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_role_is_a_limit_and_the_refusal_says_which() {
    let scene = Scene::new("roles");
    let observer = format!("Bearer {}", scene.token(&scene.add("watcher", Role::Observe)));
    let operator = format!("Bearer {}", scene.token(&scene.add("panel", Role::Operate)));
    let administrator = format!("Bearer {}", scene.token(&scene.add("boss", Role::Administer)));
    let stop = "/viam.component.motor.v1.MotorService/Stop";
    for (path, least) in [(stop, 0), (GET_POSITION, 0), (SET_POWER, 1), (RESET, 2)] {
        for (rank, who) in [&observer, &operator, &administrator].into_iter().enumerate() {
            let outcome = scene.call(path, Some(who)).await.map(drop).map_err(|refusal| refusal.code());
            let expected = if rank >= least { Ok(()) } else { Err(Code::PermissionDenied) };
            assert_eq!(outcome, expected, "{path} by number {rank}");
        }
    }
    let refusal = scene.call(SET_POWER, Some(&observer)).await.unwrap_err();
    let words = "a key of the role \"observe\" may not call viam.component.motor.v1.MotorService/SetPower: it takes \
                 the role \"operate\"";
    assert_eq!(refusal.message(), words);
}

#[test]
fn a_token_dies_with_its_key() {
    let scene = Scene::new("revoked");
    let (kept, lost) = (scene.add("kept", Role::Operate), scene.add("lost", Role::Operate));
    let (kept_token, lost_token) = (scene.token(&kept), scene.token(&lost));
    scene.revoke(lost.0);
    assert!(scene.caller(&kept_token).is_ok());
    assert_eq!(scene.caller(&lost_token).unwrap_err().code(), Code::Unauthenticated);
    let again = scene.access.log_in(&lost.0.to_string(), lost.1.reveal(), HERE);
    assert_eq!(again.unwrap_err(), Rejection::Wrong);
    // The last key goes: now nobody gets in, instead of everybody.
    scene.revoke(kept.0);
    assert_eq!(scene.caller(&kept_token).unwrap_err().code(), Code::Unauthenticated);
    fs::remove_file(scene.access.file.path()).unwrap();
    scene.access.reload();
    assert!(scene.access.is_required());
}

#[test]
fn a_token_dies_when_its_key_gets_another_secret_and_follows_its_role() {
    let scene = Scene::new("changed");
    let (key, other) = (scene.add("panel", Role::Operate), scene.add("other", Role::Operate));
    let token = scene.token(&key);
    let path = scene.access.file.path().to_owned();
    let text = fs::read_to_string(&path).unwrap();
    let edit = |text: &str| {
        fs::write(&path, text).unwrap();
        scene.access.reload();
    };
    edit(&text.replace("role = \"operate\"", "role = \"observe\""));
    assert_eq!(scene.caller(&token).unwrap().role, Role::Observe);
    let hashes: Vec<String> =
        scene.access.file.load().unwrap().iter().map(|key| key.hash.to_string()).collect();
    edit(&text.replace(&hashes[0], &hashes[1]));
    assert_eq!(scene.caller(&token).unwrap_err().code(), Code::Unauthenticated);
    // With the mistake the last good keys stay.
    edit("[[key]]\n");
    assert!(scene.caller(&scene.token(&other)).is_ok());
}

#[tokio::test]
async fn who_uses_a_key_that_goes_is_disconnected() {
    let scene = Scene::new("connections");
    let (kept, lost) = (scene.add("kept", Role::Operate), scene.add("lost", Role::Operate));
    let connect = |key: &(KeyId, Secret)| {
        let connection = Connection::new(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {}", scene.token(key)).parse().unwrap());
        for _ in 0..3 {
            scene.access.caller(&headers, Some(&connection)).unwrap();
        }
        connection
    };
    let (stays, goes) = (connect(&kept), connect(&lost));
    scene.revoke(lost.0);
    tokio::time::timeout(Duration::from_secs(5), goes.dismissed()).await.unwrap();
    let stayed = tokio::time::timeout(Duration::from_millis(50), stays.dismissed()).await;
    assert!(stayed.is_err(), "somebody else's connection was ended, too");
}

#[test]
fn who_guesses_waits_and_the_owner_does_not() {
    let scene = Scene::new("guesses");
    let (id, secret) = scene.add("panel", Role::Operate);
    let guess = |from: IpAddr| scene.access.log_in(&id.to_string(), "wrong", from).unwrap_err();
    let there = IpAddr::from([10, 0, 0, 1]);
    let refused = (0..100).map(|_| guess(there)).filter(|refusal| *refusal != Rejection::Wrong).count();
    assert!(refused >= 80, "only {refused} of 100 guesses were not looked at");
    let right = |from| scene.access.log_in(&id.to_string(), secret.reveal(), from);
    assert!(
        matches!(right(there), Err(Rejection::Later(_))),
        "not even the right one, from where it was guessed"
    );
    assert!(right(HERE).is_ok());
}

#[test]
fn files_are_read_again_when_they_change_and_only_then() {
    let scene = Scene::new("watched");
    let (count, counted) = (Arc::new(std::sync::atomic::AtomicU32::new(0)), scene.folder.join("file"));
    let mut watched = Watched {
        files: vec![counted.clone(), scene.folder.join("other")],
        seen: vec![None, None],
        reload: Box::new({
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }),
    };
    let mut looks = |expected| {
        watched.look();
        watched.look();
        assert_eq!(count.load(Ordering::Relaxed), expected);
    };
    looks(0);
    fs::write(&counted, "1").unwrap();
    looks(1);
    fs::write(scene.folder.join("new"), "2").unwrap();
    fs::rename(scene.folder.join("new"), &counted).unwrap();
    looks(2);
    fs::remove_file(&counted).unwrap();
    looks(3);
}

fn front(lines: &str) -> Front {
    let text = format!(
        "[front]\n{lines}\n[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"m\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
         firmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 1\n"
    );
    config::Config::parse(std::path::Path::new("x"), &text).unwrap_or_else(|error| panic!("{error}")).front
}

#[test]
fn other_computers_are_served_only_with_keys_and_tls_or_on_purpose() {
    let scene = Scene::new("exposure");
    scene.add("panel", Role::Operate);
    let (none, some) = (Keys::none(), scene.access.file.load().unwrap());
    let outside = "listen = \"0.0.0.0:8080\"\n";
    let tls = "certificate = \"/c\"\nprivate_key = \"/k\"\n";
    let said = |lines: &str, keys| exposure::check(&front(lines), keys).map_err(|error| error.to_string());
    assert_eq!(said("", &none), Ok(()));
    assert_eq!(said("listen = \"[::1]:8080\"", &some), Ok(()), "keys over loopback need no TLS");
    assert!(said(outside, &none).unwrap_err().contains("there is no key. Make a key"));
    assert!(said(&format!("{outside}{tls}"), &none).unwrap_err().contains("whoever reaches this address"));
    assert!(said(outside, &some).unwrap_err().contains("in plain text, because there is no certificate"));
    assert_eq!(said(&format!("{outside}{tls}"), &some), Ok(()));
    for keys in [&none, &some] {
        assert_eq!(said(&format!("{outside}insecure = true"), keys), Ok(()));
    }
}
