//! `lanyard keys`: who may log in to the front.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use config::{Config, DEFAULT_KEYS, Port, Service, duration};
use humantime::format_rfc3339_seconds;
use keys::{Draft, Key, KeyId, KeysFile, Password, Role, Secret};
use serde::Serialize;

use crate::table::{Column, Lean, lines};

const COLUMNS: [Column; 6] = [
    Column("ID", 36, Lean::Left),
    Column("NAME", 40, Lean::Left),
    Column("ROLE", 10, Lean::Left),
    Column("KIND", 8, Lean::Left),
    Column("WINDOW", 8, Lean::Right),
    Column("CREATED", 20, Lean::Left),
];

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, and show its secret: once, it is kept nowhere
    ///
    /// With the first key everybody has to log in: from then on nobody gets in without one.
    ///
    /// With --password a person who has thought up a password gets in, as a user of that name: for clients of Kinova
    /// arms, which know nothing else.
    Add {
        /// What people call it: who or what has the key
        #[arg(value_name = "NAME")]
        name: String,
        /// observe: look and stop; operate: drive; administer: also clear trips and stop everything
        #[arg(long, value_parser = |text: &str| text.parse::<Role>())]
        role: Role,
        /// A shorter window for its sessions than the configuration's, like 500ms
        #[arg(long, value_name = "DURATION")]
        window: Option<String>,
        /// Ask for a password instead of making a secret; from a program, one line on standard input
        #[arg(long)]
        password: bool,
    },
    /// Show every key; no secret is among it
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Take a key away: who uses it is shut out within a second or two, and stopped when its sessions run out
    Revoke {
        /// The key's id, as `lanyard keys list` shows it
        #[arg(value_name = "ID", value_parser = |text: &str| KeyId::parse(text).ok_or("an id is a UUID"))]
        id: KeyId,
    },
}

/// Does it, in `file` or else the one that the configuration names. `ask` asks for the password of a user.
///
/// # Errors
///
/// When the configuration or the file of keys has mistakes or cannot be read or written, or there is no password.
pub fn run(
    command: &Command,
    file: Option<&Path>,
    configuration: &Path,
    ask: &mut dyn FnMut(&str) -> anyhow::Result<Password>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let place = Place::find(file, configuration)?;
    match command {
        Command::Add { name, role, window, password } => {
            let draft = Draft::new(name, *role, window.as_deref()).map_err(anyhow::Error::msg)?;
            if *password {
                let key = place.keys.add_with_password(&draft, &ask(name)?, Some(configuration))?;
                explain_password(out, &place, &key)?;
            } else {
                let (key, secret) = place.keys.add(&draft, Some(configuration))?;
                explain(out, &place, &key, &secret)?;
            }
        }
        Command::List { json } => list(out, &place.keys, *json)?,
        Command::Revoke { id } => {
            let key = place.keys.revoke(*id)?;
            writeln!(out, "revoked: {id} \"{}\" ({}) is not let in any more", key.name, key.role)?;
            if place.keys.load()?.is_empty() {
                writeln!(
                    out,
                    "This was the last key: a front that is started from now on asks nobody to log in."
                )?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Where the keys are, and how clients find the robot.
struct Place {
    keys: KeysFile,
    address: String,
    encrypted: bool,
    /// Where users with passwords log in.
    kortex: Vec<Port>,
    /// Where clients of hoprd send their token.
    tunnel: Option<SocketAddr>,
}

impl Place {
    /// By the configuration; without one the keys can be edited all the same where they are named or usual.
    fn find(file: Option<&Path>, configuration: &Path) -> anyhow::Result<Self> {
        let config = if configuration.exists() { Some(Config::load(configuration)?) } else { None };
        let kortex = |port: &Port| port.service == Service::Kortex;
        let kortex = config.iter().flat_map(Config::ports).filter(kortex).collect();
        let tunnel = config.as_ref().and_then(|config| config.tunnel.as_ref()).map(|tunnel| tunnel.listen);
        let front = config.map(|config| config.front);
        let named = front.as_ref().map(|front| front.access.keys.as_path());
        let path = file.or(named).map_or_else(|| PathBuf::from(DEFAULT_KEYS), Path::to_path_buf);
        Ok(Self {
            keys: KeysFile::at(&path),
            address: front
                .as_ref()
                .map_or_else(|| "127.0.0.1:8080".to_owned(), |front| reachable(front.listen)),
            encrypted: front.is_some_and(|front| front.access.tls.is_some()),
            kortex,
            tunnel,
        })
    }
}

/// An address to connect to: nobody can connect to "every network".
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("THE-ROBOT:{}", address.port()) } else { address.to_string() }
}

/// What was made.
fn announce(out: &mut dyn Write, place: &Place, key: &Key) -> io::Result<()> {
    let window = key.window.map(|window| format!(", window {}", duration::show(window))).unwrap_or_default();
    let path = place.keys.path().display();
    writeln!(out, "key \"{}\" ({}{window}) was added to {path}", key.name, key.role)?;
    writeln!(out, "  id      {}", key.id)
}

fn explain(out: &mut dyn Write, place: &Place, key: &Key, secret: &Secret) -> io::Result<()> {
    announce(out, place, key)?;
    let (token, secret) = (key.token(secret), secret.reveal());
    writeln!(out, "  secret  {secret}")?;
    writeln!(out, "  token   {token}")?;
    writeln!(out, "The secret is shown this once and kept nowhere; the token is id and secret in one.")?;
    if let Some(address) = place.tunnel {
        let address = reachable(address);
        writeln!(
            out,
            "Clients of hoprd send the token as X-Auth-Token to http://{address}, see docs/tunnels.md."
        )?;
    }
    let (how, dial) = if place.encrypted {
        ("In Python, over TLS:", "disable_webrtc=True")
    } else {
        ("In Python on the robot itself; from elsewhere it takes TLS, see docs/access.md:", "insecure=True")
    };
    write!(
        out,
        "\n{how}\n\n\
         from viam.robot.client import RobotClient\n\
         from viam.rpc.dial import Credentials, DialOptions\n\
         dial = DialOptions({dial}, auth_entity=\"{}\",\n    \
             credentials=Credentials(\"api-key\", \"{secret}\"))\n\
         robot = await RobotClient.at_address(\"{}\", RobotClient.Options(dial_options=dial))\n",
        key.id, place.address
    )
}

fn explain_password(out: &mut dyn Write, place: &Place, key: &Key) -> io::Result<()> {
    announce(out, place, key)?;
    writeln!(out, "  user    {}", key.name)?;
    writeln!(
        out,
        "The password is kept nowhere, only its hash. It is for clients of Kinova arms; Viam's need a key."
    )?;
    if place.kortex.is_empty() {
        return writeln!(
            out,
            "The configuration has no [kortex]: nobody listens for them yet, see docs/kortex.md."
        );
    }
    for Port { key, address, .. } in &place.kortex {
        writeln!(out, "  {:<6}  {}", key, reachable(*address))?;
    }
    write!(
        out,
        "\nIn Python:\n\n\
         from kortex_api.autogen.messages import Session_pb2\n\
         info = Session_pb2.CreateSessionInfo()\n\
         info.username = \"{}\"\n\
         info.password = PASSWORD\n\
         info.session_inactivity_timeout = 60000\n\
         info.connection_inactivity_timeout = 2000\n",
        key.name
    )
}

/// A key as `list --json` shows it.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    name: &'a str,
    role: &'static str,
    kind: &'static str,
    window: Option<String>,
    created: String,
}

impl<'a> Shown<'a> {
    fn of(key: &'a Key) -> Self {
        Self {
            id: key.id.to_string(),
            name: &key.name,
            role: key.role.name(),
            kind: key.hash.kind().name(),
            window: key.window.map(duration::show),
            created: format_rfc3339_seconds(key.created).to_string(),
        }
    }
}

fn list(out: &mut dyn Write, file: &KeysFile, json: bool) -> anyhow::Result<()> {
    let keys = file.load()?;
    let shown: Vec<Shown<'_>> = keys.iter().map(Shown::of).collect();
    if json {
        writeln!(out, "{}", serde_json::to_string(&shown)?)?;
    } else if shown.is_empty() {
        writeln!(out, "no key in {}: nobody has to log in", file.path().display())?;
    } else {
        let row = |key: Shown<'_>| {
            vec![
                key.id,
                key.name.to_owned(),
                key.role.to_owned(),
                key.kind.to_owned(),
                key.window.unwrap_or_default(),
                key.created,
            ]
        };
        for line in lines(&COLUMNS, &shown.into_iter().map(row).collect::<Vec<_>>()) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lanyard-ctl-keys-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn configuration(&self, front: &str) -> PathBuf {
            let path = self.0.join("lanyard.toml");
            let robot = "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"m\"\nbus = \"can0\"\ndriver = \"odrive\"\n\
                firmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 100\n";
            let keys = self.0.join("keys.toml");
            std::fs::write(&path, format!("[front]\nkeys = \"{}\"\n{front}\n{robot}", keys.display()))
                .unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn said(command: &Command, file: Option<&Path>, configuration: &Path) -> anyhow::Result<String> {
        let mut out = Vec::new();
        let mut ask =
            |user: &str| Password::new("correct horse".to_owned(), user).map_err(anyhow::Error::msg);
        run(command, file, configuration, &mut ask, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn add(name: &str, window: Option<&str>) -> Command {
        let window = window.map(str::to_owned);
        Command::Add { name: name.to_owned(), role: Role::Operate, window, password: false }
    }

    fn add_user(name: &str) -> Command {
        Command::Add { name: name.to_owned(), role: Role::Operate, window: None, password: true }
    }

    fn word_after<'a>(text: &'a str, word: &str) -> &'a str {
        text.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or_default()
    }

    #[test]
    fn who_serves_clients_of_hoprd_is_told_where_the_token_goes() {
        let folder = Folder::new("token");
        let target = "[[tunnel.target]]\nname = \"t\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:1\"\n";
        let configuration = folder.configuration(&format!("[tunnel]\nlisten = \"127.0.0.1:3002\"\n{target}"));
        let text = said(&add("panel", None), None, &configuration).unwrap();
        assert!(text.contains("send the token as X-Auth-Token to http://127.0.0.1:3002, see"), "{text}");
    }

    #[test]
    fn a_key_that_was_made_is_listed_works_and_is_revoked() {
        let folder = Folder::new("life");
        let configuration = folder.configuration("");
        let file = KeysFile::at(&folder.0.join("keys.toml"));
        let text = said(&add("panel", Some("500ms")), None, &configuration).unwrap();
        let (id, secret) = (word_after(&text, "  id "), word_after(&text, "  secret "));
        assert!(text.starts_with("key \"panel\" (operate, window 500ms) was added to "), "{text}");
        assert!(text.contains(&format!("auth_entity=\"{id}\"")), "{text}");
        assert!(text.contains(&format!("Credentials(\"api-key\", \"{secret}\")")), "{text}");
        assert!(text.contains("at_address(\"127.0.0.1:8080\"") && text.contains("DialOptions(insecure=True"));
        assert!(file.load().unwrap().authenticate(id, secret).is_some());
        assert_eq!(word_after(&text, "  token "), format!("{id}.{secret}"));
        assert!(!text.contains("hoprd"), "{text}");

        let listed = said(&Command::List { json: false }, None, &configuration).unwrap();
        let row = listed.lines().nth(1).unwrap_or_default();
        assert!(row.starts_with(&format!("{id}  panel  operate  key    500ms  20")), "{listed}");
        let listed = said(&Command::List { json: true }, None, &configuration).unwrap();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!((&listed[0]["id"], &listed[0]["role"]), (&id.into(), &"operate".into()));
        assert_eq!(listed[0]["kind"], "key");
        assert!(!listed.to_string().contains(secret) && listed[0].get("hash").is_none());

        let revoke = Command::Revoke { id: KeyId::parse(id).unwrap() };
        let text = said(&revoke, None, &configuration).unwrap();
        assert!(text.contains("is not let in any more") && text.contains("last key"), "{text}");
        assert!(said(&revoke, None, &configuration).unwrap_err().to_string().contains("there is no key"));
        let listed = said(&Command::List { json: false }, None, &configuration).unwrap();
        assert!(listed.starts_with("no key in "), "{listed}");
    }

    #[test]
    fn a_user_with_a_password_is_listed_gets_in_and_is_revoked() {
        let folder = Folder::new("password");
        let configuration = folder.configuration("");
        let file = KeysFile::at(&folder.0.join("keys.toml"));
        let text = said(&add_user("ada"), None, &configuration).unwrap();
        let id = word_after(&text, "  id ");
        assert!(text.starts_with("key \"ada\" (operate) was added to "), "{text}");
        assert_eq!(word_after(&text, "  user "), "ada");
        assert!(text.contains("no [kortex]") && !text.contains("correct horse"), "{text}");
        assert!(file.load().unwrap().authenticate_password("ada", "correct horse").is_some());
        let listed = said(&Command::List { json: false }, None, &configuration).unwrap();
        assert!(
            listed
                .lines()
                .nth(1)
                .unwrap_or_default()
                .starts_with(&format!("{id}  ada   operate  password  ")),
            "{listed}"
        );
        let listed = said(&Command::List { json: true }, None, &configuration).unwrap();
        assert!(listed.contains("\"kind\":\"password\"") && !listed.contains("argon2"), "{listed}");
        let again = said(&add_user("ada"), None, &configuration).unwrap_err();
        assert!(again.to_string().contains("there is a key \"ada\" already"), "{again}");
        said(&Command::Revoke { id: KeyId::parse(id).unwrap() }, None, &configuration).unwrap();
        assert!(file.load().unwrap().is_empty());
    }

    #[test]
    fn a_user_is_told_where_to_log_in() {
        let folder = Folder::new("password-ports");
        let kortex = "[kortex]\ninsecure = true\ntcp = \"127.0.0.1\"\nmqtt = \"0.0.0.0\"\n[[kortex.joint]]\nmotor = \"m\"";
        let text = said(&add_user("ada"), None, &folder.configuration(kortex)).unwrap();
        assert_eq!(
            (word_after(&text, "  tcp "), word_after(&text, "  mqtt ")),
            ("127.0.0.1:10000", "THE-ROBOT:1883")
        );
        assert!(text.contains("info.username = \"ada\"") && !text.contains("udp"), "{text}");
    }

    #[test]
    fn the_snippet_fits_the_configuration() {
        let folder = Folder::new("snippet");
        let tls = "listen = \"0.0.0.0:8443\"\ncertificate = \"/c\"\nprivate_key = \"/k\"";
        let text = said(&add("panel", None), None, &folder.configuration(tls)).unwrap();
        assert!(
            text.contains("DialOptions(disable_webrtc=True") && text.contains("\"THE-ROBOT:8443\""),
            "{text}"
        );
    }

    #[test]
    fn a_file_can_be_named_and_a_wrong_configuration_is_no_reason_to_guess() {
        let folder = Folder::new("named");
        let other = folder.0.join("other.toml");
        let nowhere = folder.0.join("no-such.toml");
        said(&add("panel", None), Some(&other), &nowhere).unwrap();
        assert_eq!(KeysFile::at(&other).load().unwrap().iter().count(), 1);
        std::fs::write(&nowhere, "[front]\nkeys = 3\n").unwrap();
        assert!(said(&add("panel", None), None, &nowhere).unwrap_err().to_string().contains("\"keys\""));
        let error = said(&add("panel", Some("1h")), Some(&other), &folder.0.join("none")).unwrap_err();
        assert!(error.to_string().contains("from 30ms to 1m"), "{error}");
    }
}
