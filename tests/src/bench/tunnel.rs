//! What a supervised link costs, beside a relay of bare tokio and beside no relay at all: same target, same client, in
//! turns. And what listeners and connections take of memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::child::{Background, hush, role};
use super::figures::Figures;
use super::footprint::processor_time;
use super::grpc::{free_address, runtime};
use super::progress;
use super::supervise::{self, Program};
use tests::readings::kib;
use tests::stats::summary;

/// What this measures.
pub const NAMES: &[&str] = &["tunnel."];

/// All ways take turns, so that all see the same machine.
const SLICES: usize = 10;
/// Time of one slice of as much as there can be.
const SLICE: Duration = Duration::from_millis(500);
/// Questions one after the other in one slice: 10 slices have 200 beyond the p99.
const QUESTIONS: usize = 2_000;
/// Before the first whose time is taken.
const WARM_UP: usize = 500;
/// A CAN frame as socketcand has it.
const MESSAGE: usize = 40;
/// Datagrams under way at once: as many as a bus of 1 Mbit/s has in 10 ms.
const UNDER_WAY: usize = 64;
/// What is written at a time where the throughput of a stream is measured.
const PIECE: usize = 1 << 16;

/// For the footprint.
const LISTENERS: usize = 500;
const CONNECTIONS: usize = 5_000;
/// Descriptors besides both ends of every connection.
const OTHER_DESCRIPTORS: u64 = 256;
/// What a drive that stands still may take to be granted, and a front to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures all of it.
///
/// # Errors
/// A process does not come up, or a link does not pass what it should.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::try_from(2 * CONNECTIONS)? + OTHER_DESCRIPTORS;
    ensure!(most >= wanted, "{most} files may be open, {wanted} are needed (ulimit -n)");
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (grpc, api, bare) = (free_address()?, free_address()?, free_address()?);
    runtime()?.block_on(async {
        let target = Target::start().await?;
        let section = section(&api, &target);
        let supervisor = supervise::start_with(Program::Sink, 64, &grpc, &section)?;
        let mut front = role("front", [&supervisor.file])?;
        hush(&mut front);
        let front = Background::start(&mut front)?;
        let relay = Background::start(&mut role("relay", [&bare, &target.address.to_string()])?)?;
        let api: SocketAddr = api.parse()?;
        let bare: SocketAddr = bare.parse()?;
        let watched = open(api, "tcp", 1).await?;
        streams(figures, [(&front, watched), (&relay, bare)], target.address).await?;
        let watched = open(api, "udp", 1).await?;
        datagrams(figures, [(&front, watched), (&relay, bare)], target.address).await?;
        footprint(figures, &front, api).await
    })
}

/// The configuration: a supervised target for each protocol, and one with nothing behind it for the footprint.
fn section(api: &str, target: &Target) -> String {
    let entry = |protocol: &str, address: SocketAddr, service: u32, more: &str| {
        format!(
            "[[tunnel.target]]\nname = \"{protocol}{service}\"\nprotocol = \"{protocol}\"\n\
             address = \"{address}\"\nservice = {service}\n{more}\n"
        )
    };
    format!(
        "[tunnel]\nlisten = \"{api}\"\nmax_listeners = {}\nmax_connections = {}\n{}{}{}",
        LISTENERS + 2,
        CONNECTIONS + 8,
        entry("tcp", target.address, 1, "motors = [\"m0\"]\nwindow = \"10s\"\nbeat = \"bytes\""),
        entry("udp", target.address, 1, "motors = [\"m1\"]\nwindow = \"10s\"\nbeat = \"bytes\""),
        entry("tcp", target.idle, 2, ""),
    )
}

/// What links lead to: it sends everything back.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    /// Where it keeps connections and sends nothing.
    idle: SocketAddr,
}

impl Target {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let udp = UdpSocket::bind(address).await?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.set_nodelay(true)?;
                    let mut buffer = vec![0; PIECE];
                    loop {
                        let length = stream.read(&mut buffer).await?;
                        if length == 0 {
                            return anyhow::Ok(());
                        }
                        stream.write_all(&buffer[..length]).await?;
                    }
                });
            }
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                // One that does not go is lost, as on any network.
                drop(udp.send_to(&buffer[..length], from).await);
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let idle = listener.local_addr()?;
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
            }
        });
        Ok(Self { address, idle })
    }
}

/// A listener to the service of that number.
async fn open(api: SocketAddr, protocol: &str, service: u32) -> Result<SocketAddr> {
    let body = format!(
        "{{\"destination\":\"12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33\",\"path\":{{\"Hops\":0}},\
         \"target\":{{\"Service\":{service}}}}}"
    );
    let request = format!(
        "POST /api/v3/session/{protocol} HTTP/1.1\r\nHost: lanyard\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let begun = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(api).await {
            Ok(stream) => break stream,
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "the front does not come up: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    let json = answer.split_once("\r\n\r\n").map_or("", |(_, json)| json);
    let told: serde_json::Value = serde_json::from_str(json).with_context(|| answer.clone())?;
    let port = told["port"].as_u64().with_context(|| answer.clone())?;
    Ok(SocketAddr::new(api.ip(), u16::try_from(port)?))
}

/// What one way has got through.
#[derive(Debug, Default)]
struct Load {
    per_second: f64,
    count: f64,
    busy: f64,
}

impl Load {
    fn add(&mut self, count: f64, took: Duration, busy: Duration) {
        self.per_second += count / took.as_secs_f64();
        self.count += count;
        self.busy += busy.as_secs_f64();
    }

    /// `unit` is what was counted.
    fn note(&self, prefix: &str, unit: &str, figures: &mut Figures) {
        #[expect(clippy::cast_precision_loss, reason = "there are ten")]
        figures.note(format!("{prefix}.{unit}_per_s"), self.per_second / SLICES as f64);
        // What a core of its own would have given: client and target take their time from the same cores.
        figures.note(format!("{prefix}.{unit}_per_core_s"), self.count / self.busy);
    }
}

type Ways<'a> = [(&'a Background, SocketAddr); 2];

async fn streams(figures: &mut Figures, ways: Ways<'_>, target: SocketAddr) -> Result<()> {
    let [(front, watched), (relay, bare)] = ways;
    let mut clients = Vec::new();
    for at in [watched, bare, target] {
        let mut client = TcpStream::connect(at).await?;
        client.set_nodelay(true)?;
        ask(&mut client, WARM_UP).await?;
        clients.push(client);
    }
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for slice in 1..=SLICES {
        progress(&format!("questions through a link, a bare relay and direct, slice {slice} of {SLICES}"));
        for (client, times) in clients.iter_mut().zip(&mut times) {
            times.extend(ask(client, QUESTIONS).await?);
        }
    }
    let mut summaries = Vec::new();
    for (name, times) in ["link", "bare", "direct"].into_iter().zip(times) {
        let summary = summary(times).context("no question")?;
        figures.note_quantiles(&format!("tunnel.tcp.{name}"), &summary);
        summaries.push(summary);
    }
    figures.note("tunnel.tcp.added_p50_us", summaries[0].p50 - summaries[2].p50);
    figures.note("tunnel.tcp.added_p99_us", summaries[0].p99 - summaries[2].p99);

    let mut loads = [Load::default(), Load::default()];
    for slice in 1..=SLICES {
        progress(&format!("bytes through a link and a bare relay, slice {slice} of {SLICES}"));
        for ((client, load), process) in clients.iter_mut().zip(&mut loads).zip([front, relay]) {
            let (begun, before) = (Instant::now(), processor_time(process)?);
            let bytes = flood(client).await?;
            load.add(bytes, begun.elapsed(), processor_time(process)?.saturating_sub(before));
        }
    }
    loads[0].note("tunnel.tcp.link", "bytes", figures);
    loads[1].note("tunnel.tcp.bare", "bytes", figures);
    Ok(())
}

/// How long each of that many questions takes to be answered, in nanoseconds.
async fn ask(client: &mut TcpStream, questions: usize) -> Result<Vec<u64>> {
    let (question, mut answer) = ([b'.'; MESSAGE], [0; MESSAGE]);
    let mut times = Vec::with_capacity(questions);
    for _ in 0..questions {
        let begun = Instant::now();
        client.write_all(&question).await?;
        client.read_exact(&mut answer).await?;
        times.push(u64::try_from(begun.elapsed().as_nanos())?);
    }
    Ok(times)
}

/// As many bytes there and back as there can be. Returns how many came back.
async fn flood(client: &mut TcpStream) -> Result<f64> {
    let (mut reading, mut writing) = client.split();
    let until = Instant::now() + SLICE;
    let there = async {
        let piece = vec![7; PIECE];
        let mut sent = 0_u64;
        while Instant::now() < until {
            writing.write_all(&piece).await?;
            sent += piece.len() as u64;
        }
        anyhow::Ok(sent)
    };
    let total = std::cell::Cell::new(None);
    let there = async {
        total.set(Some(there.await?));
        anyhow::Ok(())
    };
    let back = async {
        let mut buffer = vec![0; PIECE];
        let mut got = 0_u64;
        while total.get() != Some(got) {
            // A time limit, because everything may be back before the last piece is known to be the last.
            if let Ok(read) = timeout(Duration::from_millis(5), reading.read(&mut buffer)).await {
                got += read? as u64;
            }
        }
        anyhow::Ok(got)
    };
    let ((), got) = tokio::try_join!(there, back)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    Ok(got as f64)
}

async fn datagrams(figures: &mut Figures, ways: Ways<'_>, target: SocketAddr) -> Result<()> {
    let [(front, watched), (relay, bare)] = ways;
    let mut clients = Vec::new();
    for at in [watched, bare, target] {
        let client = UdpSocket::bind("127.0.0.1:0").await?;
        client.connect(at).await?;
        send_and_wait(&client, WARM_UP).await?;
        clients.push(client);
    }
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for slice in 1..=SLICES {
        progress(&format!("datagrams through a link, a bare relay and direct, slice {slice} of {SLICES}"));
        for (client, times) in clients.iter().zip(&mut times) {
            times.extend(send_and_wait(client, QUESTIONS).await?);
        }
    }
    let mut summaries = Vec::new();
    for (name, times) in ["link", "bare", "direct"].into_iter().zip(times) {
        let summary = summary(times).context("no datagram")?;
        figures.note_quantiles(&format!("tunnel.udp.{name}"), &summary);
        summaries.push(summary);
    }
    figures.note("tunnel.udp.added_p99_us", summaries[0].p99 - summaries[2].p99);

    let mut loads = [Load::default(), Load::default()];
    for slice in 1..=SLICES {
        progress(&format!("many datagrams through a link and a bare relay, slice {slice} of {SLICES}"));
        for ((client, load), process) in clients.iter().zip(&mut loads).zip([front, relay]) {
            let (begun, before) = (Instant::now(), processor_time(process)?);
            let count = stream_of(client).await?;
            load.add(count, begun.elapsed(), processor_time(process)?.saturating_sub(before));
        }
    }
    loads[0].note("tunnel.udp.link", "datagrams", figures);
    loads[1].note("tunnel.udp.bare", "datagrams", figures);
    Ok(())
}

/// How long each of that many datagrams takes to come back, in nanoseconds. One that is lost is sent again.
async fn send_and_wait(client: &UdpSocket, count: usize) -> Result<Vec<u64>> {
    let mut buffer = [0; PIECE];
    let mut times = Vec::with_capacity(count);
    let mut losses = 0;
    while times.len() < count {
        let begun = Instant::now();
        client.send(&[b'.'; MESSAGE]).await?;
        match timeout(Duration::from_millis(500), client.recv(&mut buffer)).await {
            Ok(read) => {
                read?;
                times.push(u64::try_from(begun.elapsed().as_nanos())?);
            }
            Err(_) => losses += 1,
        }
        ensure!(losses < 100, "a hundred datagrams were lost");
    }
    Ok(times)
}

/// As many datagrams there and back as there can be, some always under way. Returns how many came back.
async fn stream_of(client: &UdpSocket) -> Result<f64> {
    let mut buffer = [0; PIECE];
    let until = Instant::now() + SLICE;
    let (mut back, mut under_way) = (0_u32, 0);
    while Instant::now() < until {
        while under_way < UNDER_WAY {
            client.send(&[b'.'; MESSAGE]).await?;
            under_way += 1;
        }
        match timeout(Duration::from_millis(50), client.recv(&mut buffer)).await {
            Ok(read) => {
                read?;
                back += 1;
                under_way -= 1;
            }
            // They were lost, all of them.
            Err(_) => under_way = 0,
        }
    }
    while timeout(Duration::from_millis(20), client.recv(&mut buffer)).await.is_ok() {}
    Ok(back.into())
}

/// What 500 listeners take of the front's memory, and then 5000 connections over them.
async fn footprint(figures: &mut Figures, front: &Background, api: SocketAddr) -> Result<()> {
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", front.pid()))?;
        kib(&status, "VmRSS:")
    };
    let before = resident()?;
    progress(&format!("{LISTENERS} listeners"));
    let mut listeners = Vec::with_capacity(LISTENERS);
    for _ in 0..LISTENERS {
        listeners.push(open(api, "tcp", 2).await?);
    }
    let with_listeners = resident()?;
    progress(&format!("{CONNECTIONS} connections over them"));
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for at in listeners.iter().cycle().take(CONNECTIONS) {
        let mut client = TcpStream::connect(at).await?;
        // Something has gone through each: what a link needs for that it has by now.
        client.write_all(&[7; MESSAGE]).await?;
        clients.push(client);
    }
    sleep(Duration::from_secs(2)).await;
    let with_connections = resident()?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (listeners, connections) = (LISTENERS as f64, CONNECTIONS as f64);
    figures.note("tunnel.kib_per_listener", (with_listeners - before) / listeners);
    figures.note("tunnel.kib_per_connection", (with_connections - with_listeners) / connections);
    let mut lost = 0;
    for client in &clients {
        let mut one = [0];
        // Nobody sends anything: whoever has something to read has been closed.
        lost += usize::from(
            !matches!(client.try_read(&mut one), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
    }
    ensure!(lost == 0, "{lost} of {CONNECTIONS} connections were closed");
    Ok(())
}
