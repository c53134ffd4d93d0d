//! Listeners: where they may be, for whom, and what is left of them.

use std::ops::RangeInclusive;

use super::*;

#[tokio::test]
async fn only_whoever_asked_for_it_may_use_it_and_only_as_many_as_may() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, "", "max_connections = 1\n");
    let others = robot.try_open_from("192.0.2.1", Protocol::Tcp, "127.0.0.1:0").await.unwrap().address;
    let (_, end) = rest(&mut connect(others).await).await;
    assert!(end.is_ok() || end == RESET, "{end:?}");
    let why = robot.stats(Protocol::Tcp, others).why.unwrap();
    assert!(why.contains("another address"), "{why}");
    let at = robot.open(Protocol::Tcp).await;
    let mut first = connect(at).await;
    first.write_all(b"x").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"x").await;
    rest(&mut connect(at).await).await.1.unwrap_or_default();
    assert!(robot.stats(Protocol::Tcp, at).why.unwrap().contains("max_connections"));
    drop((first, far));
    robot.until("there is room again", |robot| robot.stats(Protocol::Tcp, at).clients == 0).await;
    connect(at).await.write_all(b"y").await.unwrap();
    expect(&mut accept(&target).await, b"y").await;

    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, "", "");
    let others = robot.try_open_from("192.0.2.1", Protocol::Udp, "127.0.0.1:0").await.unwrap().address;
    let (client, _) = udp_socket().await;
    client.send_to(b"me", others).await.unwrap();
    nothing_comes(&target).await;
    let robot = Robot::new("udp", address, "", "clients = \"anybody\"\n");
    let others = robot.try_open_from("192.0.2.1", Protocol::Udp, "127.0.0.1:0").await.unwrap().address;
    client.send_to(b"me", others).await.unwrap();
    assert_eq!(datagram(&target).await.0, b"me");
}

#[tokio::test]
async fn closing_cuts_links_before_it_returns() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, DRIVES, "");
    let (one, two) = (robot.open(Protocol::Tcp).await, robot.open(Protocol::Tcp).await);
    let mut far = Vec::new();
    for at in [one, two] {
        let mut client = connect(at).await;
        client.write_all(b"go").await.unwrap();
        let mut stream = accept(&target).await;
        expect(&mut stream, b"go").await;
        far.push((client, stream));
    }
    assert_eq!(robot.tunnels.close(Protocol::Udp, one.ip(), 0).await, 0);
    assert_eq!(robot.tunnels.close(Protocol::Tcp, "127.0.0.2".parse().unwrap(), 0).await, 0);
    assert_eq!(robot.tunnels.close(Protocol::Tcp, one.ip(), 0).await, 2);
    assert_eq!(robot.driving(), 0, "by now");
    assert_eq!(robot.tunnels.list(Protocol::Tcp).len(), 0);
    for (mut client, mut stream) in far {
        assert_eq!(rest(&mut stream).await.1, RESET);
        assert_eq!(rest(&mut client).await.1, RESET);
    }
    let again = robot.try_open(Protocol::Tcp, &one.to_string()).await.unwrap();
    assert_eq!(again.address, one, "the port is free again");
}

/// Two ports in a row that nobody has. They are below those from which the kernel takes one for whoever names none
/// (32768 and up): the tests beside this one have thousands of these.
fn two_free_ports() -> RangeInclusive<u16> {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = (20_000..32_000).step_by(2).find(|first| free(first) && free(&(first + 1)));
    let first = first.expect("two ports in a row that are free");
    first..=first + 1
}

#[tokio::test]
async fn listeners_are_where_they_may_be_and_no_more_than_may() {
    let (_target, address) = tcp_target().await;
    let ports = two_free_ports();
    let settings = format!("max_listeners = 2\nports = \"{}-{}\"\n", ports.start(), ports.end());
    let robot = Robot::new("tcp", address, "", &settings);
    let refused = |opened: Result<Listed, OpenError>| match opened {
        Err(OpenError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    for (listen, says) in [
        ("0.0.0.0:0", "listen_hosts"),
        ("[::]:0", "listen_hosts"),
        ("[::ffff:127.0.0.1]:0", "listen_hosts"),
        ("127.0.0.2:0", "listen_hosts"),
        ("127.0.0.1:80", "computer's own"),
    ] {
        let why = refused(robot.try_open(Protocol::Tcp, listen).await);
        assert!(why.contains(says), "{listen}: {why}");
    }
    let first = robot.try_open(Protocol::Tcp, "127.0.0.1:0").await.unwrap();
    assert!(ports.contains(&first.address.port()), "{first:?}");
    let taken = robot.try_open(Protocol::Tcp, &first.address.to_string()).await;
    assert_eq!(taken.unwrap_err(), OpenError::AddressTaken);
    robot.try_open(Protocol::Tcp, "127.0.0.1:0").await.unwrap();
    assert!(refused(robot.try_open(Protocol::Tcp, "127.0.0.1:0").await).contains("max_listeners"));
    robot.tunnels.close(Protocol::Tcp, first.address.ip(), first.address.port()).await;
    assert_eq!(robot.try_open(Protocol::Tcp, "127.0.0.1:0").await.unwrap().address, first.address);
}

#[tokio::test]
async fn nothing_is_left_of_listeners_that_were_closed() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, DRIVES, "");
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    // Each takes descriptors and a port; with a client, a session, of which this supervisor never frees one of its 64.
    for round in 0..10_000 {
        let at = robot.open(Protocol::Tcp).await;
        if round % 250 == 0 {
            let mut client = connect(at).await;
            client.write_all(b"go").await.unwrap();
            expect(&mut accept(&target).await, b"go").await;
        }
        assert_eq!(robot.tunnels.close(Protocol::Tcp, at.ip(), at.port()).await, 1);
    }
    assert_eq!(robot.driving(), 0);
    assert_eq!(robot.tunnels.list(Protocol::Tcp).len(), 0);
    // Other tests have theirs at the same time.
    assert!(descriptors() < before + 1_000, "{before} before, {} after", descriptors());
}
