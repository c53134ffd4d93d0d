//! Whether our client of hoprd's session API says on the wire what hoprd's own SDK says, byte by byte: a server of paper
//! compares it with what was recorded (`front/tests/vectors/hopr_clients.txt`).
//!
//! What would be wrong in the client and in Lanyard alike would otherwise not show.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tests::robot::STILL;
use tests::tunnel::Program;

use crate::scene::with_clients;

const RECORDED: &str = include_str!("../../../front/tests/vectors/hopr_clients.txt");
const TOKEN: &str = "^^LOCAL-testing-123^^";

/// A request: its head line by line, and its body.
type Request = (Vec<String>, String);

/// What the SDK sent in a step of the recording.
fn recorded(step: &str) -> Result<Request> {
    let title = format!("## STEP {step}");
    let lines = RECORDED.lines().skip_while(|line| *line != title).skip(1);
    let said: Vec<&str> = lines.map_while(|line| line.strip_prefix(">>> ")).collect();
    let (body, head) = said.split_last().with_context(|| format!("no step {step:?}"))?;
    let body = body.strip_prefix("BODY b'").and_then(|body| body.strip_suffix('\'')).context("no body")?;
    let head = head.iter().filter(|line| !line.is_empty()).map(|line| (*line).to_owned());
    Ok((head.collect(), body.to_owned()))
}

/// Takes one request, and answers it with nothing of use. Returns the address, and what was said.
fn paper() -> Result<(String, JoinHandle<Result<Request>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let take = move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(STILL))?;
        let mut reader = BufReader::new(&stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.strip_suffix("\r\n").context("a line without its end")? {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
        reader.read_exact(&mut body)?;
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")?;
        Ok((head, String::from_utf8(body)?))
    };
    Ok((address, std::thread::spawn(take)))
}

/// The arguments of `create_client` in the recording.
fn create(protocol: &str, target: Value, more: Value) -> (&'static str, Value) {
    let mut arguments = json!({ "protocol": protocol, "target": target });
    for (key, value) in more.as_object().into_iter().flatten() {
        arguments[key] = value.clone();
    }
    ("create", arguments)
}

fn close(ip: &str, port: u16, protocol: &str) -> (&'static str, Value) {
    ("close", json!({ "protocol": protocol, "ip": ip, "port": port }))
}

/// Fails if the client says one byte that hoprd's SDK does not, or another order of headers.
#[test]
fn client_says_what_the_sdk_says() -> Result<()> {
    let full = json!({
        "listen_host": "127.0.0.1:10000",
        "capabilities": ["Segmentation", "Retransmission", "NoDelay"],
        "hops": 1,
    });
    let steps = [
        ("list tcp empty", ("listed", json!({ "protocol": "tcp" }))),
        ("list with_http_info", ("listed", json!({ "protocol": "udp" }))),
        ("create tcp minimal", create("tcp", json!({ "Plain": "localhost:8080" }), json!({}))),
        ("create tcp full", create("tcp", json!({ "Plain": "127.0.0.1:29536" }), full)),
        (
            "create udp ip only",
            create(
                "udp",
                json!({ "Plain": "can0.robot:20000" }),
                json!({ "listen_host": "127.0.0.1", "capabilities": [] }),
            ),
        ),
        ("create v6", create("tcp", json!({ "Sealed": "AAEC" }), json!({ "listen_host": "[::1]:10002" }))),
        ("close tcp", close("127.0.0.1", 10_000, "tcp")),
        ("close v6", close("::1", 10_002, "tcp")),
        ("close udp port 0", close("127.0.0.1", 0, "udp")),
        ("auth: no token", ("listed", json!({ "protocol": "tcp" }))),
    ];
    with_clients(|clients| {
        let mut program = Program::idle(clients)?;
        for (step, (call, mut arguments)) in steps {
            let (mut head, body) = recorded(step)?;
            let (address, paper) = paper()?;
            for line in &mut head {
                if line.starts_with("Host: ") {
                    *line = format!("Host: {address}");
                }
            }
            arguments["call"] = json!(call);
            arguments["address"] = json!(address);
            if step != "auth: no token" {
                arguments["token"] = json!(TOKEN);
            }
            program.ask("rest", arguments)?;
            let said = paper.join().map_err(|_| anyhow!("the server of paper panicked"))??;
            ensure!(
                said == (head.clone(), body.clone()),
                "{step}: said {said:#?} instead of {head:#?} {body}"
            );
        }
        Ok(())
    })
}
