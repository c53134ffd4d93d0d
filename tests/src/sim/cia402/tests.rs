//! The drive as a master sees it: frames in, frames out.

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Rig {
    drive: Cia402,
    now: Time,
    out: Vec<Frame>,
}

impl Rig {
    /// A drive with node 5 that has booted.
    fn new(keys: &str) -> Self {
        let mut params = Params::parse(&format!("node=5,{keys}")).expect("well formed");
        let drive = Cia402::new(Config::take(&mut params).expect("valid"));
        params.finish().expect("all known");
        let mut rig = Self { drive, now: Time::ZERO, out: Vec::new() };
        rig.drive.tick(rig.now, &mut rig.out);
        rig
    }

    /// Sends a frame and returns what came since the last call.
    fn say(&mut self, id: u32, hex: &str) -> Vec<Frame> {
        let data: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
        self.drive.on_frame(self.now, &Frame::data(id, &data), &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Lets time pass as the bus loop does, and returns the frames sent.
    fn wait(&mut self, ms: u32) -> Vec<Frame> {
        let until = self.now + MS * ms;
        while self.drive.next_due() <= until {
            self.now = self.now.max(self.drive.next_due());
            self.drive.tick(self.now, &mut self.out);
        }
        self.now = until;
        self.drive.tick(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn controlword(&mut self, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.say(0x605, &format!("2b406000{low:02x}{high:02x}0000"));
    }

    fn statusword(&mut self) -> u16 {
        let answer = self.say(0x605, "4041600000000000");
        answer.first().and_then(|f| f.u16_at(4)).expect("an answer")
    }

    fn state(&mut self) -> u16 {
        self.statusword() & 0x6F
    }

    /// Enables and turns at 2 rev/s = 8192 counts/s.
    fn run(&mut self) {
        for controlword in [0x06, 0x07, 0x0F] {
            self.controlword(controlword);
        }
        self.say(0x605, "23ff600000200000");
        self.wait(200);
        assert_eq!(self.state(), 0x27);
        assert!(self.drive.shaft.velocity() == 2.0);
    }

    fn velocity(&mut self) -> f64 {
        self.drive.advance(self.now);
        self.drive.shaft.velocity()
    }
}

fn frame(id: u32, hex: &str) -> Frame {
    let data: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
    Frame::data(id, &data)
}

#[test]
fn it_boots_and_beats() {
    let mut rig = Rig::new("");
    assert_eq!(std::mem::take(&mut rig.out), [frame(0x705, "00")]);
    assert_eq!(rig.wait(100), [frame(0x705, "7f")]);
    assert_eq!(rig.statusword() & 0x4F, 0x40);
    rig.say(0x000, "0105");
    assert!(rig.wait(100).contains(&frame(0x705, "05")));
    rig.say(0x000, "0200");
    assert_eq!(rig.wait(100), [frame(0x705, "04")]);
    assert!(rig.say(0x605, "4041600000000000").is_empty(), "no SDO while stopped");
    rig.say(0x000, "8106");
    assert!(rig.wait(10).is_empty(), "another node's reset");
    rig.say(0x000, "8105");
    assert_eq!(rig.wait(10), [frame(0x705, "00")]);
}

#[test]
fn heartbeat_time_can_be_set() {
    let mut rig = Rig::new("");
    assert_eq!(rig.say(0x605, "2b17100014000000").last(), Some(&frame(0x585, "6017100000000000")));
    assert_eq!(rig.wait(99).len(), 4);
}

#[test]
fn pdos_only_while_operational() {
    let mut rig = Rig::new("");
    rig.controlword(0x06);
    rig.say(0x205, "0f00");
    assert_eq!(rig.state(), 0x21, "pre-operational: no PDO");
    assert!(rig.wait(50).iter().all(|f| f.id != 0x185));
    rig.say(0x000, "0105");
    rig.say(0x205, "0f0000200000");
    rig.wait(500);
    assert_eq!(rig.wait(10).last(), Some(&frame(0x185, "370600200000")));
    rig.say(0x205, "0200");
    rig.wait(100);
    assert_eq!(rig.wait(10).last().map(|f| f.u16_at(0).expect("statusword") & 0x4F), Some(0x40));
    assert_eq!(rig.say(0x205, "0f00ff"), [frame(0x085, "1082000000000000")]);
}

#[test]
fn a_quick_stop_ramps_and_disables() {
    let mut rig = Rig::new("");
    rig.run();
    rig.controlword(0x02);
    assert_eq!(rig.state(), 0x07);
    rig.wait(20);
    assert!((rig.velocity() - 0.8).abs() < 1e-9, "60 rev/s² for 20 ms");
    rig.wait(20);
    assert_eq!(rig.statusword() & 0x4F, 0x40);
}

#[test]
fn a_quick_stop_with_option_6_holds() {
    let mut rig = Rig::new("");
    rig.say(0x605, "2b5a600006000000");
    rig.run();
    rig.controlword(0x02);
    rig.wait(500);
    assert_eq!(rig.state(), 0x07);
    assert!(rig.velocity() == 0.0);
    rig.controlword(0x0F);
    assert_eq!(rig.state(), 0x27);
}

#[test]
fn halt_ramps_with_torque_on() {
    let mut rig = Rig::new("");
    rig.run();
    rig.controlword(0x010F);
    rig.wait(50);
    assert!((rig.velocity() - 1.0).abs() < 1e-9, "20 rev/s² for 50 ms");
    rig.wait(100);
    assert_eq!(rig.statusword() & 0x146F, 0x1427, "enabled, target reached, speed zero");
    rig.controlword(0x000F);
    rig.wait(200);
    assert!(rig.velocity() == 2.0);
}

#[test]
fn disable_voltage_coasts() {
    let mut rig = Rig::new("");
    rig.run();
    rig.controlword(0);
    rig.wait(150);
    assert!((rig.velocity() - 2.0 / std::f64::consts::E).abs() < 1e-9);
}

#[test]
fn faults_are_reset_by_a_rising_edge() {
    let mut rig = Rig::new("");
    rig.run();
    rig.drive.order(rig.now, &Order::Fault(0x3210), &mut rig.out);
    assert_eq!(std::mem::take(&mut rig.out), [frame(0x085, "1032010000000000")]);
    assert_eq!(rig.state(), 0x0F);
    rig.wait(50);
    assert_eq!(rig.statusword() & 0x4F, 0x08);
    assert_eq!(rig.say(0x605, "403f600000000000"), [frame(0x585, "4b3f600010320000")]);
    rig.controlword(0x0F);
    assert_eq!(rig.statusword() & 0x4F, 0x08);
    assert_eq!(rig.say(0x605, "2b40600080000000").last(), Some(&frame(0x085, "0000000000000000")));
    assert_eq!(rig.statusword() & 0x4F, 0x40);
    // The bit is still set, so a second fault is not reset by writing it again.
    rig.drive.order(rig.now, &Order::Fault(0x3210), &mut rig.out);
    rig.controlword(0x80);
    assert_eq!(rig.statusword() & 0x4F, 0x08);
}

#[test]
fn a_lost_heartbeat_applies_6007() {
    for (option, state) in [(0, 0x27), (1, 0x0F), (2, 0x40), (3, 0x07)] {
        let mut rig = Rig::new(&format!("abort_option={option}"));
        rig.run();
        rig.say(0x000, "0105");
        rig.say(0x605, "23161001fa007f00");
        rig.wait(1000);
        assert_eq!(rig.state(), 0x27, "not watched before the first heartbeat");
        rig.say(0x77F, "05");
        assert!(rig.wait(250).iter().all(|f| f.id != 0x085));
        let sent = rig.wait(1);
        assert_eq!(sent.first(), Some(&frame(0x085, "3081110000000000")), "option {option}");
        assert_eq!(rig.state() & !0x20, state & !0x20, "option {option}");
        assert!(rig.drive.nmt == Nmt::PreOperational);
        assert_eq!(rig.say(0x77F, "05").first().and_then(|f| f.u16_at(0)), Some(0));
    }
}

#[test]
fn nmt_stop_applies_6007_but_pre_operational_does_not() {
    let mut rig = Rig::new("abort_option=3");
    rig.run();
    rig.say(0x000, "8005");
    assert!(rig.drive.state == State::Enabled);
    rig.say(0x000, "0205");
    assert!(rig.drive.state == State::QuickStop);
    let mut rig = Rig::new("abort_option=3,nmt_stop_aborts=off");
    rig.run();
    rig.say(0x000, "0205");
    assert!(rig.drive.state == State::Enabled);
    rig.say(0x000, "8105");
    assert!(rig.drive.state == State::NotReady);
}

#[test]
fn sdo_refusals_carry_the_right_code() {
    let mut rig = Rig::new("");
    for (request, code) in [
        ("4000200000000000", "80002000".to_owned() + "00000206"),
        ("2f4060000f000000", "80406000".to_owned() + "10000706"),
        ("2b41600000000000", "80416000".to_owned() + "02000106"),
        ("4016100500000000", "80161005".to_owned() + "11000906"),
        ("2f60600001000000", "80606000".to_owned() + "30000906"),
        ("2140600009000000", "80406000".to_owned() + "01000405"),
        ("2b5a600009000000", "805a6000".to_owned() + "30000906"),
    ] {
        assert_eq!(rig.say(0x605, request).last(), Some(&frame(0x585, &code)), "{request}");
    }
}

#[test]
fn a_synchronous_pdo_waits_for_sync() {
    let mut rig = Rig::new("rpdo_type=1,tpdo_type=2,running=2");
    rig.say(0x205, "0200");
    rig.wait(10);
    assert_eq!(rig.drive.state, State::Enabled);
    assert!(rig.say(0x080, "").is_empty());
    assert_eq!(rig.drive.state, State::QuickStop);
    assert_eq!(rig.say(0x080, "").len(), 1);
}

#[test]
fn ignored_stops_are_acknowledged_and_have_no_effect() {
    let mut rig = Rig::new("");
    rig.run();
    rig.drive.order(rig.now, &Order::IgnoreVelocityZero(true), &mut rig.out);
    rig.controlword(0x02);
    rig.controlword(0x010F);
    assert_eq!(rig.say(0x605, "23ff600000000000").last(), Some(&frame(0x585, "60ff600000000000")));
    rig.wait(500);
    assert!(rig.velocity() == 2.0 && rig.state() == 0x27);
    rig.controlword(0x00);
    assert_eq!(rig.statusword() & 0x4F, 0x40, "torque off is not ignored");
}

#[test]
fn node_guarding_toggles() {
    let mut rig = Rig::new("");
    rig.out.clear();
    for toggled in ["7f", "ff", "7f"] {
        rig.drive.on_frame(rig.now, &Frame::request(0x705, 1), &mut rig.out);
        assert_eq!(std::mem::take(&mut rig.out), [frame(0x705, toggled)]);
    }
}

#[test]
fn pdos_are_mapped_in_the_right_order_only() {
    let mut rig = Rig::new("");
    let refused = Some(frame(0x585, "8000160141000406"));
    assert_eq!(rig.say(0x605, "2300160110004060").last().copied(), refused, "not while it has objects");
    for (request, answer) in [
        ("2300140105020080", "6000140100000000"),
        ("2f00160000000000", "6000160000000000"),
        ("2300160110004060", "6000160100000000"),
        ("230016022000ff60", "6000160200000000"),
        ("2f00160002000000", "6000160000000000"),
        ("2300140105020000", "6000140100000000"),
    ] {
        assert_eq!(rig.say(0x605, request).last(), Some(&frame(0x585, answer)), "{request}");
    }
}
