//! How hoprd's clients name a node: a peer id or an address. Only their form is looked at: no such network is here.

use serde::{Deserialize, Serialize};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Characters of a peer id: 44 bytes at most, the longest public key that is not hashed and what names it.
const LONGEST_PEER_ID: usize = 61;
/// Digits of an address: 20 bytes.
const ADDRESS_DIGITS: usize = 40;
/// What begins a peer id that is a hash, and one that is the key itself: the kind, and the length of what follows.
const SHA256: [u8; 2] = [0x12, 32];
const IDENTITY: u8 = 0;
const LONGEST_KEY: u8 = 42;

/// A node's name in the network of a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Node(String);

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_address(&text) || is_peer_id(&text) {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(LONGEST_PEER_ID).collect();
        Err(format!(
            "parse error: {shown:?} is neither a peer id like \"12D3Koo...\" nor an address: \"0x\" and 40 digits"
        ))
    }
}

impl From<Node> for String {
    fn from(node: Node) -> Self {
        node.0
    }
}

fn is_address(text: &str) -> bool {
    let digits = text.strip_prefix("0x");
    digits.is_some_and(|digits| {
        digits.len() == ADDRESS_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_peer_id(text: &str) -> bool {
    let Some(bytes) = base58(text) else { return false };
    let Some((head, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let fits = rest.len() == usize::from(head[1]);
    fits && (*head == SHA256 || head[0] == IDENTITY && (1..=LONGEST_KEY).contains(&head[1]))
}

/// The bytes of a short text in base 58.
fn base58(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST_PEER_ID {
        return None;
    }
    // The least significant byte first.
    let mut bytes: Vec<u8> = Vec::new();
    for character in text.bytes() {
        let digit = BASE58.iter().position(|known| *known == character)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            [*byte, ..] = carry.to_le_bytes();
            carry >>= 8;
        }
        if carry > 0 {
            bytes.push(carry.to_le_bytes()[0]);
        }
    }
    let zeroes = text.bytes().take_while(|character| *character == BASE58[0]).count();
    bytes.resize(bytes.len() + zeroes, 0);
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_node(text: &str) -> bool {
        Node::try_from(text.to_owned()).is_ok()
    }

    #[test]
    fn peer_ids_and_addresses_are_nodes() {
        for node in [
            "12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33",
            "16Uiu2HAm91QFjPepnwjuZWzK5pb5ZS8z8qxQRfKZJNXjkgGNUAit",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
            "0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75",
            "0x1b482420afa04aec1ef0e4a00c18451e84466c75",
        ] {
            assert!(is_node(node), "{node}");
        }
        let key = "12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33";
        assert_eq!(base58(key).unwrap()[..6], [0, 36, 8, 1, 18, 32]);
        assert_eq!(base58("11"), Some(vec![0, 0]));
        assert_eq!(base58("2g"), Some(vec![0x61]));
    }

    #[test]
    fn nothing_else_is() {
        let key = "12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33";
        let long = "1".repeat(100_000);
        let address = "0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75";
        for node in [
            "",
            "robot",
            "1",
            "11",
            "11111111",
            &key[1..],
            &key[..51],
            &format!("{key}1"),
            &key.replace('K', "0"),
            &long,
            &address[2..],
            &address[..41],
            &format!("{address}0"),
            &address.replace("0x", "0X"),
            &address.replace('B', "G"),
            " 12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33",
            "ü",
        ] {
            assert!(!is_node(node), "{node}");
        }
    }
}
