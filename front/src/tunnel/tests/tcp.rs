//! Links of TCP: what passes, and when they are cut.

use super::*;

#[tokio::test]
async fn bytes_go_there_and_back_and_ends_one_by_one() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, "", "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"question").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"question").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut far).await, (Vec::new(), Ok(())), "the end goes on");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    assert_eq!(rest(&mut client).await, (b"answer".to_vec(), Ok(())), "and what came back after it");
    assert_eq!(robot.driving(), 0, "nothing is behind it");
    let stats = robot.stats(Protocol::Tcp, at);
    assert_eq!((stats.to_target, stats.to_client, stats.links), (8, 6, 1));
    robot.until("the link is over", |robot| robot.stats(Protocol::Tcp, at).clients == 0).await;
    assert_eq!(robot.tunnels.list(Protocol::Tcp).len(), 1, "the listener goes on");
}

#[tokio::test]
async fn a_target_that_is_down_takes_nobody() {
    let (target, address) = tcp_target().await;
    drop(target);
    let robot = Robot::new("tcp", address, DRIVES, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    assert_eq!(rest(&mut client).await.1, RESET);
    robot.until("it is counted", |robot| robot.stats(Protocol::Tcp, at).refused == 1).await;
    let why = robot.stats(Protocol::Tcp, at).why.unwrap();
    assert!(why.contains("cannot be reached"), "{why}");
    assert_eq!(robot.driving(), 0);
}

#[tokio::test]
async fn whoever_only_connects_or_listens_drives_nothing() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, SHORT, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    let mut far = accept(&target).await;
    far.write_all(b"news").await.unwrap();
    expect(&mut client, b"news").await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(robot.driving(), 0);
    far.write_all(b"more").await.unwrap();
    expect(&mut client, b"more").await;
    assert_eq!(robot.stats(Protocol::Tcp, at).state, State::Waiting);
}

#[tokio::test]
async fn silence_cuts_the_link_and_ends_the_listener() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, SHORT, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"go").await;
    assert_eq!(robot.driving(), 1);
    assert_eq!(robot.stats(Protocol::Tcp, at).state, State::Active);
    // What the target says is no sign of its client.
    far.write_all(b"news").await.unwrap();
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET));
    assert_eq!(rest(&mut client).await.1, RESET);
    robot.until("it is in no list", |robot| robot.tunnels.list(Protocol::Tcp).is_empty()).await;
    let stats = robot.stats(Protocol::Tcp, at);
    assert_eq!((stats.state, stats.trips), (State::Expired, 1));
    assert_eq!(stats.why.unwrap(), "its client was silent for its window of 200 ms");
    assert_eq!(robot.tunnels.close(Protocol::Tcp, at.ip(), at.port()).await, 0, "it is closed already");
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens there");
}

#[tokio::test]
async fn the_target_is_cut_before_the_session_is_over_and_the_supervisor_finds_it_silent() {
    let (target, address) = tcp_target().await;
    let more = "motors = [\"left\"]\nwindow = \"500ms\"\nbeat = \"bytes\"\nafter_expiry = \"wait\"\n";
    let robot = Robot::new("tcp", address, more, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut in_order = 0;
    // There are 20 ms between: a computer that does nothing for so long is not looked at.
    for _ in 0..5 {
        let mut client = connect(at).await;
        client.write_all(b"go").await.unwrap();
        let mut far = accept(&target).await;
        expect(&mut far, b"go").await;
        let id = robot.sessions.list().first().expect("it drives").id;
        assert_eq!(rest(&mut far).await.1, RESET);
        in_order += robot.driving();
        robot.until("its session is over", |robot| robot.driving() == 0).await;
        let me = Entity::anonymous();
        robot.until("it is known why", |robot| robot.sessions.why(&me, id).is_some()).await;
        let why = robot.sessions.why(&me, id).unwrap();
        assert_eq!(why, "it was silent for longer than its window", "that is no goodbye");
    }
    assert!(in_order > 0);
}

#[tokio::test]
async fn what_comes_after_a_gap_reaches_nobody() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("{SHORT}after_expiry = \"wait\"\n"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"go").await;
    robot.until("it is cut", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    // Whether this can be written at all depends on when the reset arrives.
    drop(client.write_all(b"fast!").await);
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET));
    // It waits for another client here, or for the same one.
    let mut again = connect(at).await;
    again.write_all(b"slow").await.unwrap();
    expect(&mut accept(&target).await, b"slow").await;
    assert_eq!(robot.stats(Protocol::Tcp, at).state, State::Active);
}

#[tokio::test]
async fn beats_keep_it_and_its_own_end_stops_what_it_drives() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, SHORT, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"go").await;
    for _ in 0..20 {
        sleep(Duration::from_millis(30)).await;
        client.write_all(b".").await.unwrap();
    }
    assert_eq!(robot.stats(Protocol::Tcp, at).trips, 0);
    client.write_all(b"halt").await.unwrap();
    drop(client);
    let (got, end) = rest(&mut far).await;
    assert!(got.ends_with(b".halt"), "what was sent in time arrives: {got:?}");
    assert_eq!(end, Ok(()));
    robot.until("its session is over", |robot| robot.driving() == 0).await;
    assert_eq!(robot.tunnels.list(Protocol::Tcp).len(), 1, "the listener goes on");
}

#[tokio::test]
async fn without_a_grant_nothing_passes_and_with_its_loss_nothing_more() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, DRIVES, "");
    let at = robot.open(Protocol::Tcp).await;
    robot.willing.store(false, Ordering::Relaxed);
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET), "not one byte");
    robot.until("it is told", |robot| robot.stats(Protocol::Tcp, at).refused == 1).await;
    let why = robot.stats(Protocol::Tcp, at).why.unwrap();
    assert!(why.contains("may not drive") && why.contains("left"), "{why}");
    assert_eq!(robot.driving(), 0);

    robot.willing.store(true, Ordering::Relaxed);
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"go").await;
    robot.willing.store(false, Ordering::Relaxed);
    sleep(A_WHILE).await;
    drop(client.write_all(b"on").await);
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET));
    robot.until("its session is over", |robot| robot.driving() == 0).await;
    robot.until("it is a trip", |robot| robot.stats(Protocol::Tcp, at).state == State::Expired).await;
}

#[tokio::test]
async fn a_command_that_has_waited_for_longer_than_the_window_does_not_pass() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, SHORT, "");
    let at = robot.open(Protocol::Tcp).await;
    robot.willing.store(false, Ordering::Relaxed);
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    sleep(Duration::from_millis(300)).await;
    robot.willing.store(true, Ordering::Relaxed);
    assert_eq!(rest(&mut far).await, (Vec::new(), RESET));
    assert_eq!(robot.driving(), 0);
}

#[tokio::test]
async fn a_later_client_takes_the_motors_and_the_earlier_link_is_cut() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("{DRIVES}after_expiry = \"wait\"\n"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut first = connect(at).await;
    first.write_all(b"a").await.unwrap();
    let mut far_first = accept(&target).await;
    expect(&mut far_first, b"a").await;
    let mut second = connect(at).await;
    second.write_all(b"b").await.unwrap();
    let mut far_second = accept(&target).await;
    expect(&mut far_second, b"b").await;
    assert_eq!(rest(&mut far_first).await.1, RESET);
    second.write_all(b"c").await.unwrap();
    expect(&mut far_second, b"c").await;
}

#[tokio::test]
async fn who_does_not_read_is_watched_all_the_same() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, "motors = [\"left\"]\nwindow = \"500ms\"\nbeat = \"bytes\"\n", "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
    client.write_all(b"go").await.unwrap();
    let far = accept(&target).await;
    let (mut from_client, mut to_client) = far.into_split();
    // More than every buffer on the way takes.
    let flood = tokio::spawn(async move { drop(to_client.write_all(&vec![7; 64 << 20]).await) });
    for _ in 0..10 {
        sleep(A_WHILE).await;
        client.write_all(b".").await.unwrap();
    }
    let mut got = [0; 12];
    timeout(SOON, from_client.read_exact(&mut got)).await.expect("commands pass").unwrap();
    assert_eq!(robot.driving(), 1);
    robot.until("its silence is seen", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    timeout(SOON, flood).await.expect("the target is let go").unwrap();
}

#[tokio::test]
async fn a_target_that_does_not_read_holds_up_its_own_client_only() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, SHORT, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    SockRef::from(&far).set_recv_buffer_size(4_096).unwrap();
    let flood = tokio::spawn(async move { drop(client.write_all(&vec![7; 64 << 20]).await) });
    robot
        .until("what nobody takes is no sign of life", |robot| robot.stats(Protocol::Tcp, at).trips == 1)
        .await;
    timeout(SOON, flood).await.expect("the client is let go").unwrap();
    assert_eq!(rest(&mut far).await.1, RESET);
    robot.until("its session is over", |robot| robot.driving() == 0).await;
}

#[tokio::test]
async fn too_few_beats_are_none_and_neither_are_those_without_a_command() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("{DRIVES}min_rate = 10\n"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"go").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"go").await;
    assert_eq!(rest(&mut far).await.1, RESET);
    robot.until("it is told", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    assert!(robot.stats(Protocol::Tcp, at).why.unwrap().contains("min_rate wants 10"));

    let (target, address) = tcp_target().await;
    let speaks = format!("{DRIVES}speaks = \"socketcand\"\nrequire_progress = \"300ms\"\n");
    let robot = Robot::new("tcp", address, &speaks, "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    client.write_all(b"< open can0 >< rawmode >").await.unwrap();
    let mut far = accept(&target).await;
    expect(&mut far, b"< open can0 >< rawmode >").await;
    assert_eq!(robot.driving(), 0, "a handshake moves nothing");
    client.write_all(TURN.as_bytes()).await.unwrap();
    expect(&mut far, TURN.as_bytes()).await;
    assert_eq!(robot.driving(), 1);
    let echoing = tokio::spawn(async move {
        while client.write_all(b"< echo >").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    robot.until("echoes are no progress", |robot| robot.stats(Protocol::Tcp, at).trips == 1).await;
    let why = robot.stats(Protocol::Tcp, at).why.unwrap();
    assert!(why.contains("require_progress"), "{why}");
    timeout(SOON, echoing).await.expect("it is let go").unwrap();
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let (target, address) = tcp_target().await;
    let robot = Robot::new("tcp", address, &format!("{DRIVES}speaks = \"socketcand\"\n"), "");
    let at = robot.open(Protocol::Tcp).await;
    let mut client = connect(at).await;
    SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
    let _far = accept(&target).await;
    let nonsense = b"< x >".repeat(10_000);
    let flood = async { while client.write_all(&nonsense).await.is_ok() {} };
    timeout(SOON, flood).await.expect("it is closed");
    robot.until("it is told", |robot| robot.stats(Protocol::Tcp, at).refused == 1).await;
    assert_eq!(robot.stats(Protocol::Tcp, at).why.unwrap(), "its client does not read what it is answered");
}
