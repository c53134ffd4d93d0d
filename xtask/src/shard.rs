//! One of several equal shares of a long job, as the command line writes it: `2/3`, the second of three.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// The `number`-th of `count` equal shares, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    count: usize,
}

impl Shard {
    /// Everything.
    pub const ALL: Self = Self { number: 1, count: 1 };

    /// Every share that it is one of, itself included.
    pub fn siblings(self) -> impl Iterator<Item = Self> {
        (1..=self.count).map(move |number| Self { number, ..self })
    }

    /// How many shares there are.
    pub const fn count(self) -> usize {
        self.count
    }

    /// What of these belongs to it: every `count`-th.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.number - 1).step_by(self.count).collect()
    }

    /// As cargo-mutants writes it, which counts from 0.
    pub fn for_cargo_mutants(self) -> String {
        format!("{}/{}", self.number - 1, self.count)
    }

    /// As part of a file's name.
    pub fn as_name(self) -> String {
        format!("{}of{}", self.number, self.count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        const FORM: &str = "write K/N, such as 2/3: the second of three";
        let (number, count) = text.split_once('/').context(FORM)?;
        let shard = Self { number: number.parse().context(FORM)?, count: count.parse().context(FORM)? };
        ensure!((1..=shard.count).contains(&shard.number), FORM);
        Ok(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn shares_divide_everything_and_are_read_as_written() {
        let mut seen: Vec<u32> = Vec::new();
        for shard in "3/7".parse::<Shard>().unwrap().siblings() {
            assert_eq!(shard.to_string().parse::<Shard>().unwrap(), shard);
            seen.extend(shard.of((0..100).collect()));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<u32>>());
        assert_eq!(Shard::ALL.of(vec!["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn shares_that_do_not_exist_are_refused() {
        for wrong in ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!("1/4".parse::<Shard>().unwrap().for_cargo_mutants(), "0/4");
    }
}
