//! Who can call the front, and over what: the keys, the certificate, and what is open.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use config::{Config, Exposure, Logins, Port};
use keys::{Keys, KeysFile};

use super::{Finding, Verdict};

/// Looks at the keys, at the files of TLS, and at what both mean for where the front listens.
pub fn examine(config: &Config) -> Vec<Finding> {
    let front = &config.front;
    let file = KeysFile::at(&front.access.keys);
    let (keys, mut findings) = match file.load() {
        Ok(keys) => (keys, Vec::new()),
        Err(error) => {
            let found = format!("the front does not start with this: {error}");
            (Keys::none(), vec![attention("keys", found, "mend the file; `lanyard keys list` reads it")])
        }
    };
    if findings.is_empty() {
        findings.extend(config.ports().map(|port| exposure(config, &port, &keys)));
    }
    findings.extend(front.access.tls.iter().flat_map(|tls| {
        [("certificate", &tls.certificate, 0), ("private_key", &tls.private_key, 0o007)].map(
            |(subject, path, forbidden)| match fs::metadata(path) {
                Err(error) => {
                    let found = format!("{}: {error}", path.display());
                    attention(subject, found, "the front does not start without it")
                }
                Ok(file) if file.mode() & forbidden != 0 => {
                    let found = format!("{}: everybody can read it", path.display());
                    attention(subject, found, "make a new one, or `chmod 640` if nobody has seen it")
                }
                Ok(_) => good(subject, format!("{} is there", path.display())),
            },
        )
    }));
    findings
}

fn exposure(config: &Config, port: &Port, keys: &Keys) -> Finding {
    let logins = if keys.is_empty() { Logins::None } else { Logins::Required };
    let subject = port.to_string();
    match (config.danger(port, logins), port.exposure) {
        (Some(danger), exposure) => {
            let what = match exposure {
                Exposure::Insecure => "insecure = true",
                Exposure::Refused => "the front does not start",
            };
            let (found, remedy) = (format!("{what}: {danger}"), Some(danger.remedy().to_owned()));
            Finding { subject, verdict: Verdict::Attention, found, remedy }
        }
        (None, _) => {
            let found = match keys.iter().count() {
                0 => "nobody has to log in, and only this computer can call".to_owned(),
                1 => "who calls has to log in; there is 1 key".to_owned(),
                count => format!("who calls has to log in; there are {count} keys"),
            };
            Finding { subject, verdict: Verdict::Good, found, remedy: None }
        }
    }
}

fn good(subject: &str, found: String) -> Finding {
    Finding { subject: format!("[front] {subject}"), verdict: Verdict::Good, found, remedy: None }
}

fn attention(subject: &str, found: String, remedy: &str) -> Finding {
    let (subject, remedy) = (format!("[front] {subject}"), Some(remedy.to_owned()));
    Finding { subject, verdict: Verdict::Attention, found, remedy }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use keys::{Draft, Role};

    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn config(keys: &Path, front: &str) -> Config {
        let text = format!(
            "[front]\nkeys = \"{}\"\n{front}\n[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"m\"\nbus = \"can0\"\n\
             driver = \"odrive\"\nfirmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 1\n",
            keys.display()
        );
        Config::parse(Path::new("x"), &text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_port_of_kortex_is_looked_at() {
        let folder =
            Folder(std::env::temp_dir().join(format!("lanyard-doctor-kortex-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let keys = folder.0.join("keys.toml");
        KeysFile::at(&keys).add(&Draft::new("panel", Role::Operate, None).unwrap(), None).unwrap();
        let joint = "[[kortex.joint]]\nmotor = \"m\"\n";
        let found = |more: &str| {
            let kortex = format!("[kortex]\ntcp = \"127.0.0.1\"\nmqtt = \"0.0.0.0\"\n{more}{joint}");
            let findings = examine(&config(&keys, &kortex));
            let lines = findings
                .into_iter()
                .map(|finding| format!("{:?} {}: {}", finding.verdict, finding.subject, finding.found));
            lines.collect::<Vec<_>>()
        };
        let open = "passwords go over the network in plain text, because Kortex has no TLS";
        let good = "who calls has to log in; there is 1 key";
        for (more, what) in [("", "the front does not start"), ("insecure = true\n", "insecure = true")] {
            let expected = [
                format!("Good [front] listen = \"127.0.0.1:8080\": {good}"),
                format!("Good [kortex] tcp = \"127.0.0.1:10000\": {good}"),
                format!("Attention [kortex] mqtt = \"0.0.0.0:1883\": {what}: {open}"),
            ];
            assert_eq!(found(more), expected);
        }
    }

    #[test]
    fn what_is_open_and_what_is_broken_needs_a_human() {
        let folder = Folder(std::env::temp_dir().join(format!("lanyard-doctor-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let keys = folder.0.join("keys.toml");
        let said = |front: &str| {
            let findings = examine(&config(&keys, front));
            let lines = findings.iter().map(|finding| format!("{:?} {}", finding.verdict, finding.found));
            lines.collect::<Vec<_>>().join("\n")
        };
        let outside = "listen = \"0.0.0.0:8080\"\n";
        assert_eq!(said(""), "Good nobody has to log in, and only this computer can call");
        assert!(
            said(outside).starts_with("Attention the front does not start: whoever reaches this address")
        );
        let insecure = said(&format!("{outside}insecure = true"));
        assert!(
            insecure.starts_with("Attention insecure = true: whoever reaches this address"),
            "{insecure}"
        );

        KeysFile::at(&keys).add(&Draft::new("panel", Role::Operate, None).unwrap(), None).unwrap();
        assert_eq!(said(""), "Good who calls has to log in; there is 1 key");
        assert!(said(outside).contains("in plain text"));
        let (certificate, key) = (folder.0.join("cert.pem"), folder.0.join("key.pem"));
        let tls = format!(
            "{outside}certificate = \"{}\"\nprivate_key = \"{}\"",
            certificate.display(),
            key.display()
        );
        let missing = said(&tls);
        assert!(missing.contains("Attention") && missing.contains("key.pem: No such file"), "{missing}");
        fs::write(&certificate, "").unwrap();
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        assert!(said(&tls).contains("key.pem: everybody can read it"));
        fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
        assert!(!said(&tls).contains("Attention"), "{}", said(&tls));
        fs::set_permissions(&keys, Permissions::from_mode(0o666)).unwrap();
        assert!(said("").starts_with("Attention the front does not start with this: "), "{}", said(""));
    }
}
