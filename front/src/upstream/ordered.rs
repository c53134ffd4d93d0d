//! Tests of the order in which the upstream gets what its clients send.

use std::time::{Duration, Instant};

use h2::Reason;
use shm_proto::SessionId;
use tokio::time::{sleep, timeout};

use super::admission::{PREEMPTED_AFTER, SETTLES_WITHIN, STOPPED_AFTER};
use super::guarded::{
    A_WHILE, ARM, ARM_STOP, ARM_THAT_TAKES_LONG, HOLD, SERVO, STOP_ALL, Setting, paths, setting,
    setting_before,
};
use super::testing::{Answered, Backend, Call, Client, SOON, Seen, Word, message};
use crate::sessions::Entity;

const BASE_SET_POWER: &str = "/viam.component.base.v1.BaseService/SetPower";
const BASE_STOP: &str = "/viam.component.base.v1.BaseService/Stop";
const MOTOR_SET_POWER: &str = "/viam.component.motor.v1.MotorService/SetPower";

/// What a program may send for the one base.
const KINDS: [&str; 3] = [BASE_SET_POWER, BASE_STOP, STOP_ALL];

fn body_of(path: &str) -> bytes::Bytes {
    if path == STOP_ALL { super::framed(&[]) } else { message("base1") }
}

/// Begins a call and sends all of it; nothing is awaited but that the connection takes it.
async fn send(client: &mut Client, path: &str, number: usize, id: SessionId) -> Call {
    let headers = [("viam-sid", &*id.to_string()), ("x-number", &*number.to_string())];
    let mut call = client.begin(path, &headers).await;
    call.stream.send_data(body_of(path), true).unwrap();
    call
}

/// Sends calls in one go and awaits all of their answers. Returns the numbers of what the upstream did, in its order.
async fn at_once(setting: &mut Setting, paths: &[&str], id: SessionId) -> Vec<String> {
    let mut calls = Vec::new();
    setting.client.cork();
    for (number, path) in paths.iter().enumerate() {
        calls.push(send(&mut setting.client, path, number, id).await);
    }
    setting.client.uncork();
    for (call, path) in calls.into_iter().zip(paths) {
        let answered = call.finish().await;
        let status = answered.status().0;
        let is_last = std::ptr::eq(path, paths.last().unwrap());
        let is_replaced = status == "10" && *path == BASE_SET_POWER && !is_last;
        assert!(status == "0" || is_replaced, "{path}: {answered:?}");
    }
    setting.backend.done()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_come_together_the_last_is_done_last_whatever_the_server() {
    for (first, second) in KINDS.iter().flat_map(|first| KINDS.iter().map(move |second| (*first, *second))) {
        for seed in 0..3 {
            // The first of a session, whose session is new, and those of one that has used the base.
            let mut setting = setting("").await;
            setting.backend.disorder(seed);
            let id = setting.open();
            for round in ["new", "known"] {
                let done = at_once(&mut setting, &[first, second], id).await;
                // Which of two stops comes last is all the same.
                let right = if first != BASE_SET_POWER && second != BASE_SET_POWER {
                    &["0", "1"][..]
                } else {
                    &["1"]
                };
                let last = done.last().map_or("nothing", String::as_str);
                assert!(right.contains(&last), "{first}, {second}: {done:?}, {round}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_come_together_the_last_is_done_last_whatever_the_server() {
    let mut setting = setting("").await;
    let id = setting.open();
    for seed in 0..12 {
        setting.backend.disorder(seed);
        let commands = [BASE_SET_POWER; 4];
        let last = KINDS[usize::try_from(seed).unwrap() % KINDS.len()];
        let all = [&commands[..], &[last]].concat();
        let done = at_once(&mut setting, &all, id).await;
        assert_eq!(done.last().map(String::as_str), Some("4"), "{last}: {done:?}");
    }
}

#[tokio::test]
async fn resources_that_share_a_motor_share_an_order() {
    let more = "[upstream.resources]\n\"base/base1\" = [\"left\"]\n\"motor/base1\" = [\"left\"]";
    let mut setting = setting(more).await;
    let id = setting.open();
    // Neither is granted: the supervisor of this test is silent. The Stop voids what waits for the grant.
    let waiting = send(&mut setting.client, MOTOR_SET_POWER, 0, id).await;
    sleep(A_WHILE).await;
    let stop = send(&mut setting.client, BASE_STOP, 1, id).await;
    let begun = Instant::now();
    assert_eq!(waiting.finish().await.status().0, "10");
    assert!(begun.elapsed() < A_WHILE, "it still waited for the grant: {:?}", begun.elapsed());
    assert_eq!(stop.finish().await.status().0, "0");
    assert_eq!(setting.backend.done(), ["1"]);
}

async fn hang(setting: &mut Setting, name: &str, id: SessionId) -> Call {
    let sid = id.to_string();
    let mut call = setting.client.begin(ARM_THAT_TAKES_LONG, &[("viam-sid", &sid)]).await;
    call.stream.send_data(message(name), true).unwrap();
    setting.backend.call_of(ARM_THAT_TAKES_LONG).await;
    call
}

#[tokio::test]
async fn a_command_that_waits_for_room_is_not_passed_on_after_a_stop() {
    let backend = Backend::start_at("127.0.0.1:0".parse().unwrap(), 2).await;
    let mut setting = setting_before(backend, "").await;
    let id = setting.open();
    let hanging = [hang(&mut setting, "arm2", id).await, hang(&mut setting, "arm3", id).await];
    let mut waiting = setting.client.begin(ARM, &[("viam-sid", &id.to_string())]).await;
    waiting.stream.send_data(message("arm1"), true).unwrap();
    sleep(A_WHILE).await;
    let stopped = setting.client.call(ARM_STOP, &[], &message("arm1")).await;
    assert_eq!(stopped.status().0, "0");
    assert_eq!(waiting.finish().await.status().0, "10");
    drop(hanging);
    setting.backend.reset().await;
    setting.backend.reset().await;
    sleep(2 * A_WHILE).await;
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default(), "it came after the Stop");
}

#[tokio::test]
async fn watchers_take_no_room_from_commands() {
    let backend = Backend::start_at("127.0.0.1:0".parse().unwrap(), 20).await;
    let mut setting = setting_before(backend, "").await;
    let id = setting.open();
    let mut stranger = Client::connect(setting.address).await;
    let mut watching = Vec::new();
    for _ in 0..20 {
        watching.push(stranger.begin("/test.Echo/Hang", &[]).await);
        setting.backend.call_of("/test.Echo/Hang").await;
    }
    let begun = Instant::now();
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0");
    assert!(begun.elapsed() < A_WHILE, "it waited {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_long_call_that_a_newer_command_pre_empts_is_reset_first() {
    let mut setting = setting("").await;
    let id = setting.open();
    let long = hang(&mut setting, "arm1", id).await;
    let begun = Instant::now();
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0");
    let took = begun.elapsed();
    let answered = long.finish().await;
    assert_eq!(answered.status().0, "10", "{answered:?}");
    let order: Vec<_> = setting.backend.so_far();
    assert!(matches!(order[..], [Seen::Reset(Reason::CANCEL), Seen::Call(_)]), "{order:?}");
    // Its reset was given time to be carried out.
    assert!(took >= PREEMPTED_AFTER + SETTLES_WITHIN, "{took:?}");
}

#[tokio::test]
async fn a_stop_goes_out_at_once_and_again_when_what_hangs_was_reset_and_has_settled() {
    let mut setting = setting("").await;
    let id = setting.open();
    let hung = hang(&mut setting, "arm1", id).await;
    let begun = Instant::now();
    let mut stop = setting.client.begin(ARM_STOP, &[]).await;
    stop.stream.send_data(message("arm1"), true).unwrap();
    setting.backend.call_of(ARM_STOP).await;
    assert!(begun.elapsed() < STOPPED_AFTER / 2, "it waited {:?}", begun.elapsed());
    assert_eq!(setting.backend.reset().await, Reason::CANCEL);
    let reset = begun.elapsed();
    assert!(reset >= STOPPED_AFTER - A_WHILE, "{reset:?}");
    setting.backend.call_of(ARM_STOP).await;
    let again = begun.elapsed();
    setting.backend.call_of(ARM_STOP).await;
    assert!(begun.elapsed() >= again + SETTLES_WITHIN - A_WHILE, "{:?} after {again:?}", begun.elapsed());
    assert_eq!(stop.finish().await.status().0, "0");
    assert!(begun.elapsed() >= reset + SETTLES_WITHIN - A_WHILE, "OK was said before the last");
    assert_eq!(hung.finish().await.status().0, "10");
    sleep(2 * SETTLES_WITHIN).await;
    assert_eq!(paths(&setting.backend.so_far()), <[&str; 0]>::default(), "more than needed");
}

#[tokio::test]
async fn a_stop_is_carried_out_when_its_client_has_gone() {
    let mut setting = setting("").await;
    let id = setting.open();
    let _hung = hang(&mut setting, "arm1", id).await;
    let mut other = Client::connect(setting.address).await;
    let mut stop = other.begin(ARM_STOP, &[]).await;
    stop.stream.send_data(message("arm1"), true).unwrap();
    setting.backend.call_of(ARM_STOP).await;
    drop((stop, other));
    for _ in 0..2 {
        setting.backend.call_of(ARM_STOP).await;
    }
}

#[tokio::test]
async fn a_command_behind_a_stop_leaves_after_its_answer() {
    let mut setting = setting("").await;
    let id = setting.open();
    setting.command(SERVO, "servo1", id).await;
    setting.backend.so_far();
    let stop = "/viam.component.servo.v1.ServoService/Stop";
    let mut stopping = setting.client.begin(stop, &[]).await;
    stopping.stream.send_data(message("servo1"), true).unwrap();
    setting.backend.call_of(stop).await;
    let begun = Instant::now();
    assert_eq!(setting.command(SERVO, "servo1", id).await.status().0, "0");
    let waited = begun.elapsed();
    assert!(waited + A_WHILE >= super::testing::SLOW_STOP, "it came {waited:?} after the Stop");
    assert_eq!(stopping.finish().await.status().0, "0");
}

#[tokio::test]
async fn after_a_stop_the_same_partys_other_connections_are_held_off() {
    let mut setting = setting("").await;
    let id = setting.open();
    let mut other = Client::connect(setting.address).await;
    assert_eq!(setting.client.call(ARM_STOP, &[], &message("arm1")).await.status().0, "0");
    let headers = [("viam-sid", &*id.to_string())];
    let held = other.call(ARM, &headers, &message("arm1")).await;
    let (status, why) = held.status();
    assert!(status == "10" && why.contains("over%20another%20connection"), "{held:?}");
    assert_eq!(other.call(ARM, &headers, &message("arm2")).await.status().0, "0", "another arm");
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0", "its own connection");
    sleep(HOLD).await;
    assert_eq!(other.call(ARM, &headers, &message("arm1")).await.status().0, "0", "later");
}

#[tokio::test]
async fn a_goodbye_refuses_nothing_and_closes_no_session() {
    let mut setting = setting("").await;
    let id = setting.open();
    setting.command(ARM, "arm1", id).await;
    let running = hang(&mut setting, "arm2", id).await;
    for word in [Word::Goodbye, Word::Goodbye, Word::Goodbye] {
        setting.backend.says(word);
        for _ in 0..10 {
            assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0");
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(setting.sessions.beat(&Entity::anonymous(), id).is_ok());
    let resets = setting.backend.so_far().into_iter().filter(|seen| matches!(seen, Seen::Reset(_))).count();
    assert_eq!(resets, 0, "what was under way was taken back");
    drop(running);
    setting.backend.reset().await;
}

#[tokio::test]
async fn a_server_that_counts_pings_loses_nobody_their_session() {
    let mut setting = setting("").await;
    let id = setting.open();
    setting.command(ARM, "arm1", id).await;
    setting.backend.says(Word::TooManyPings);
    sleep(A_WHILE).await;
    assert_eq!(setting.command(ARM, "arm1", id).await.status().0, "0");
    assert!(setting.sessions.beat(&Entity::anonymous(), id).is_ok());
}

async fn with_timeout(setting: &mut Setting, path: &str, within: &str, id: SessionId) -> Answered {
    let headers = [("viam-sid", &*id.to_string()), ("grpc-timeout", within)];
    let mut call = setting.client.begin(path, &headers).await;
    call.stream.send_data(message("arm1"), true).unwrap();
    timeout(SOON, call.finish()).await.unwrap()
}

#[tokio::test]
async fn a_move_ends_at_its_deadline_as_by_a_reset() {
    let mut setting = setting("").await;
    let id = setting.open();
    let begun = Instant::now();
    let answered = with_timeout(&mut setting, ARM_THAT_TAKES_LONG, "300m", id).await;
    assert_eq!(answered.status().0, "4", "{answered:?}");
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert_eq!(setting.backend.reset().await, Reason::CANCEL);
}

#[tokio::test]
async fn a_command_whose_deadline_passes_while_it_waits_is_not_passed_on() {
    let mut setting = setting("").await;
    let id = setting.open();
    let _hung = hang(&mut setting, "arm1", id).await;
    let mut stop = setting.client.begin(ARM_STOP, &[]).await;
    stop.stream.send_data(message("arm1"), true).unwrap();
    setting.backend.call_of(ARM_STOP).await;
    // The Stop takes longer than that, since a call hangs.
    let answered = with_timeout(&mut setting, ARM, "100m", id).await;
    assert_eq!(answered.status().0, "4", "{answered:?}");
    assert_eq!(stop.finish().await.status().0, "0");
    sleep(A_WHILE).await;
    let seen = setting.backend.so_far();
    assert!(!paths(&seen).contains(&ARM), "{seen:?}");
}
