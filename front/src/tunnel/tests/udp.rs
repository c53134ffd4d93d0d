//! Links of UDP: what passes, who has a listener, and when they are cut.

use super::*;

#[tokio::test]
async fn datagrams_stay_whole_and_the_first_address_has_the_listener() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, "", "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    let (stranger, _) = udp_socket().await;
    let mut longest = vec![0; 65_507];
    longest.iter_mut().zip(0_u8..=255).for_each(|(byte, value)| *byte = value);
    for message in [&b"one"[..], b"", &longest, b"two"] {
        client.send_to(message, at).await.unwrap();
        let (got, from) = datagram(&target).await;
        assert!(got == message, "{} bytes of {}", got.len(), message.len());
        target.send_to(message, from).await.unwrap();
        assert!(datagram(&client).await == (message.to_vec(), at), "and back");
        stranger.send_to(b"me too", at).await.unwrap();
    }
    nothing_comes(&target).await;
    nothing_comes(&stranger).await;
    let stats = robot.stats(Protocol::Udp, at);
    assert_eq!((stats.refused, stats.links, stats.clients), (4, 1, 1));
    assert_eq!(robot.tunnels.close(Protocol::Udp, at.ip(), at.port()).await, 1);
    client.send_to(b"still there?", at).await.unwrap();
    nothing_comes(&target).await;
}

#[tokio::test]
async fn another_address_takes_a_listener_after_silence_if_it_may() {
    for (relock, passes) in [("", false), ("relock = \"50ms\"\n", true)] {
        let (target, address) = udp_socket().await;
        let robot = Robot::new("udp", address, relock, "");
        let at = robot.open(Protocol::Udp).await;
        let ((first, _), (second, _)) = (udp_socket().await, udp_socket().await);
        first.send_to(b"first", at).await.unwrap();
        assert_eq!(datagram(&target).await.0, b"first");
        second.send_to(b"early", at).await.unwrap();
        sleep(A_WHILE).await;
        second.send_to(b"second", at).await.unwrap();
        if passes {
            assert_eq!(datagram(&target).await.0, b"second");
            first.send_to(b"back", at).await.unwrap();
        }
        nothing_comes(&target).await;
    }
}

#[tokio::test]
async fn silence_over_udp_ends_it_and_strangers_are_no_sign_of_life() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, SHORT, "");
    let at = robot.open(Protocol::Udp).await;
    let ((client, _), (stranger, _)) = (udp_socket().await, udp_socket().await);
    client.send_to(b"go", at).await.unwrap();
    assert_eq!(datagram(&target).await.0, b"go");
    assert_eq!(robot.driving(), 1);
    let noise = tokio::spawn(async move {
        loop {
            stranger.send_to(b"go", at).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    });
    robot.until("it is in no list", |robot| robot.tunnels.list(Protocol::Udp).is_empty()).await;
    noise.abort();
    assert_eq!(robot.stats(Protocol::Udp, at).state, State::Expired);
    client.send_to(b"go on", at).await.unwrap();
    nothing_comes(&target).await;
    assert_eq!(robot.driving(), 0);
}

#[tokio::test]
async fn what_goes_on_after_a_gap_over_udp_is_no_new_link() {
    let (target, address) = udp_socket().await;
    let more = format!("{SHORT}after_expiry = \"wait\"\nrelock = \"1s\"\n");
    let robot = Robot::new("udp", address, &more, "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    client.send_to(b"go", at).await.unwrap();
    assert_eq!(datagram(&target).await.0, b"go");
    robot.until("it is cut", |robot| robot.stats(Protocol::Udp, at).trips == 1).await;
    for _ in 0..20 {
        client.send_to(b"go on", at).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    nothing_comes(&target).await;
    sleep(Duration::from_millis(1_100)).await;
    client.send_to(b"again", at).await.unwrap();
    assert_eq!(datagram(&target).await.0, b"again");
    assert_eq!(robot.stats(Protocol::Udp, at).state, State::Active);
}

#[tokio::test]
async fn a_command_that_has_waited_for_longer_than_the_window_does_not_pass() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, SHORT, "");
    let at = robot.open(Protocol::Udp).await;
    robot.willing.store(false, Ordering::Relaxed);
    let (client, _) = udp_socket().await;
    client.send_to(b"go", at).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    robot.willing.store(true, Ordering::Relaxed);
    nothing_comes(&target).await;
    assert_eq!(robot.driving(), 0);
}

#[tokio::test]
async fn a_fixed_source_is_kept_and_known_at_once_to_be_taken() {
    let (target, address) = udp_socket().await;
    let (taken, source) = udp_socket().await;
    let robot = Robot::new("udp", address, &format!("source = \"{source}\"\n"), "");
    let refused = robot.try_open(Protocol::Udp, "127.0.0.1:0").await.unwrap_err();
    assert!(matches!(&refused, OpenError::Refused(why) if why.contains(&source.to_string())), "{refused:?}");
    drop(taken);
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    client.send_to(b"x", at).await.unwrap();
    assert_eq!(datagram(&target).await, (b"x".to_vec(), source));
}

#[tokio::test]
async fn what_is_no_can_frame_does_not_pass() {
    let (target, address) = udp_socket().await;
    let robot = Robot::new("udp", address, &format!("{DRIVES}speaks = \"cannelloni\"\n"), "");
    let at = robot.open(Protocol::Udp).await;
    let (client, _) = udp_socket().await;
    let good = [2, 0, 1, 0, 1, 0, 0, 0, 0x2D, 4, 0, 0, 0, 0x40];
    for bad in [&b"go"[..], &[], &good[..10], &[1, 0, 1, 0, 0]] {
        client.send_to(bad, at).await.unwrap();
    }
    nothing_comes(&target).await;
    assert_eq!(robot.driving(), 0);
    client.send_to(&good, at).await.unwrap();
    assert_eq!(datagram(&target).await.0, good);
    assert_eq!(robot.driving(), 1);
    assert!(robot.watcher.attachment.beats.owner(MOTOR).is_some());
}
