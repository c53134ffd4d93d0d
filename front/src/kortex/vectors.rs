//! Golden frames: recorded between real clients of both generations and a server that they accepted.

use bytes::Bytes;

const KORTEX2: &str = include_str!("../../tests/vectors/kortex2.txt");
const KORTEX3: &str = include_str!("../../tests/vectors/kortex3_mqtt.txt");

/// What comes before a frame on TCP: eight bytes and a length.
const TCP_HEAD: usize = 12;

fn bytes(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Every line of bytes with the line that describes it.
fn lines(text: &'static str) -> impl Iterator<Item = (&'static str, Bytes)> {
    let mut what = "";
    text.lines().filter_map(move |line| {
        let hex = line.strip_prefix(' ').map(str::trim).filter(|hex| !hex.is_empty());
        if hex.is_none() {
            what = line;
        }
        hex.map(|hex| (what, bytes(hex)))
    })
}

/// What TCP carried, heads and all, in order; true: from the client.
pub fn tcp() -> Vec<(&'static str, Bytes)> {
    lines(KORTEX2).filter(|(what, _)| what.starts_with("TCP")).collect()
}

/// What MQTT carried, whole packets.
pub fn mqtt() -> Vec<(&'static str, Bytes)> {
    lines(KORTEX3).collect()
}

/// Every frame of every transport.
pub fn all() -> Vec<(String, Bytes)> {
    let tcp = tcp().into_iter().map(|(what, bytes)| (what.to_owned(), bytes.slice(TCP_HEAD..)));
    let udp = lines(KORTEX2)
        .filter(|(what, _)| what.starts_with("UDP"))
        .map(|(what, bytes)| (what.to_owned(), bytes));
    // A frame is the end of a packet, and begins with its header: the field 1, of 10, 15 or 20 bytes.
    let mqtt = mqtt()
        .into_iter()
        .filter(|(what, _)| what.contains("PING") || what.contains("ftype") || what.contains("RESPONSE"));
    let frame = |packet: &Bytes| {
        (0..packet.len().saturating_sub(6)).find(|at| {
            matches!(packet[*at..*at + 3], [0x0A, 10 | 15 | 20, 0x0D]) && packet[*at + 6] & 0xF0 == 0x10
        })
    };
    let mqtt = mqtt.map(|(what, packet)| {
        let at = frame(&packet).unwrap_or_else(|| panic!("no frame in {what}"));
        (what.to_owned(), packet.slice(at..))
    });
    tcp.chain(udp).chain(mqtt).collect()
}
