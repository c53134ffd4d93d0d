//! What the configuration allows and what is often not meant: the warnings of `lanyard check`.

use config::Config;

use super::Finding;
use crate::check;

/// Whether a setting is meant, nobody can tell from here.
pub fn examine(config: &Config) -> Vec<Finding> {
    let file = config.path.display().to_string();
    let warnings = check::warnings(config);
    if warnings.is_empty() {
        return vec![Finding::good(&file, "no setting that is often not meant".to_owned())];
    }
    let told = warnings.into_iter().map(|warning| {
        Finding::unknown(
            &file,
            warning,
            Some("nothing if it is meant; lanyard.example.toml explains each setting"),
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Good, Unknown};
    use super::super::robot;
    use super::examine;

    #[test]
    fn each_warning_is_a_finding_and_none_is_good() {
        let careful = examine(&robot("[supervisor]\ncpu = 3\n"));
        assert_eq!((careful.len(), careful[0].verdict), (1, Good));
        let careless = examine(&robot("[supervisor]\nreset = \"auto\"\n"));
        assert_eq!(careless.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Unknown; 2]);
        assert!(careless[0].found.contains("reset = \"auto\""), "{careless:?}");
    }
}
