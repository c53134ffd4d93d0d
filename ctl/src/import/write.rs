//! The lanyard.toml that comes out, and what is said besides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::anyhow;
use serde_json::Value;

use super::behind::{self, Behind};
use super::robot::{Auth, Component, Network, Robot};
use super::{Import, address, duration};
use crate::table::wrap;

/// Longest name of a motor in lanyard.toml, bytes.
const LONGEST_NAME: usize = shm_proto::verdicts::NAME_BYTES;

/// Longest line of a comment.
const WIDTH: usize = 105;

/// Marks a line whose value only a person knows. Exactly these lines are what `lanyard check` then complains about.
pub const FILL_IN: &str = "# FILL IN: ";

/// What a component has in viam-server for its own purposes; it stays there, and nobody misses it here.
const VIAMS_OWN: [&str; 6] =
    ["depends_on", "frame", "log_configuration", "namespace", "notes", "service_configs"];

/// The file being written.
#[derive(Default)]
struct Page {
    text: String,
    notes: Vec<String>,
    to_fill_in: usize,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A comment; whatever it quotes cannot end it.
    fn comment(&mut self, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.chars().count() > WIDTH {
            for line in wrap(&text, WIDTH) {
                self.line(&format!("# {line}"));
            }
        } else {
            self.line(format!("# {text}").trim_end());
        }
    }

    fn title(&mut self, text: &str) {
        let rule = format!("# {}", "-".repeat(WIDTH));
        self.line("");
        self.line(&rule);
        self.comment(text);
        self.line(&rule);
    }

    fn set(&mut self, key: &str, value: &str) {
        self.line(&format!("{} = {value}", toml_key(key)));
    }

    fn fill_in(&mut self, key: &str, value: &str, what: &str) {
        self.to_fill_in += 1;
        self.line(&format!("{} = {value}  {FILL_IN}{what}", toml_key(key)));
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Said in both places.
    fn remark(&mut self, text: &str) {
        self.comment(text);
        self.note(text);
    }
}

/// Writes the file.
///
/// # Errors
///
/// For settings that viam-server itself would refuse.
pub fn file(from: &str, robot: &Robot) -> anyhow::Result<Import> {
    let components = robot.components.as_deref().unwrap_or_default();
    let network = robot.network.as_ref();
    let bind = network.and_then(|network| network.bind_address.as_deref()).filter(|bind| !bind.is_empty());
    let wrong = |what: String| anyhow!("{from}: {what}");
    let addresses = address::of(bind.unwrap_or(address::DEFAULT_BIND))
        .map_err(|what| wrong(format!("network: {what}")))?;
    let behind = resources(components).map_err(wrong)?;
    let motors = Motors::of(components);

    let mut page = Page::default();
    head(&mut page, from, robot, addresses.upstream);
    page.title("The supervisor: the real-time process that watches the sessions and stops the motors.");
    page.line("[supervisor]");
    page.comment(
        "A new session may drive again after a stop, as with viam-server. With \"neutral\" its client must send a Stop \
         first; with \"manual\" somebody has to look first: lanyard reset TRIP_ID.",
    );
    page.set("reset", "\"auto\"");
    front(&mut page, robot, addresses.listen).map_err(wrong)?;
    upstream(&mut page, robot, addresses.upstream);
    write_resources(&mut page, &behind, &motors);
    write_motors(&mut page, components, &motors);
    write_bases(&mut page, components, &motors);
    leftovers(&mut page, robot, components);
    let count = page.to_fill_in;
    page.notes.insert(
        0,
        format!("{count} lines are marked FILL IN; `lanyard check` names them until they are filled in"),
    );
    Ok(Import { text: page.text, notes: page.notes })
}

fn head(page: &mut Page, from: &str, robot: &Robot, upstream: SocketAddr) {
    page.comment(&format!(
        "Lanyard in front of a viam-server: written by `lanyard import-viam` from {from}."
    ));
    page.comment("");
    page.comment(
        "1. Fill in every line that is marked FILL IN. `lanyard check` names exactly these until you have.",
    );
    page.comment("   Drive families and their keys: docs/drives.md. All other keys: lanyard.example.toml.");
    page.comment(
        "2. Move viam-server out of the way: clients connect to Lanyard, at the address they know. In its",
    );
    page.comment("   configuration, set");
    page.comment(&format!("       \"network\": {{ \"bind_address\": \"{upstream}\" }}"));
    let mut move_it =
        format!("viam-server must move: set network.bind_address to \"{upstream}\" in its configuration");
    if files(robot.network.as_ref()).is_some() {
        page.comment("   and take tls_cert_file and tls_key_file out: Lanyard has the certificate now, and the way from it to");
        page.comment("   viam-server never leaves this computer.");
        move_it.push_str(", and take tls_cert_file and tls_key_file out");
    }
    page.comment("3. Start Lanyard, then viam-server. Clients stay as they are.");
    page.note(move_it);
}

/// The certificate and its key, if both are named.
fn files(network: Option<&Network>) -> Option<(&str, &str)> {
    let network = network?;
    let file = |file: &'_ Option<String>| file.clone().filter(|file| !file.is_empty());
    file(&network.tls_cert_file).and(file(&network.tls_key_file))?;
    Some((network.tls_cert_file.as_deref()?, network.tls_key_file.as_deref()?))
}

fn front(page: &mut Page, robot: &Robot, listen: Option<SocketAddr>) -> Result<(), String> {
    let network = robot.network.as_ref();
    let given = |file: Option<&String>| file.is_some_and(|file| !file.is_empty());
    let certificate = given(network.and_then(|network| network.tls_cert_file.as_ref()));
    let key = given(network.and_then(|network| network.tls_key_file.as_ref()));
    if certificate != key {
        return Err("network: tls_cert_file and tls_key_file go together; one of them is missing".to_owned());
    }
    page.title("The front: the process that clients talk to.");
    page.line("[front]");
    page.comment("Where viam-server listened until now.");
    match listen {
        Some(listen) => {
            page.set("listen", &quoted(&listen.to_string()));
            if !listen.ip().is_loopback() {
                page.remark(
                    "clients come from other computers: give them keys (`lanyard keys add`); without any, Lanyard \
                     refuses to listen there",
                );
            }
        }
        None => {
            let bind = network.and_then(|network| network.bind_address.as_deref()).unwrap_or_default();
            page.fill_in(
                "listen",
                "\"\"",
                &format!("the number of {}, like \"192.168.1.7:8080\"", bare(bind)),
            );
        }
    }
    let window =
        network.and_then(|network| network.sessions.as_ref()?.heartbeat_window).and_then(|window| window.0);
    match window {
        Some(window) => page.set("heartbeat_window", &quoted(&duration::show(window))),
        None => page.line("#heartbeat_window = \"2s\""),
    }
    if let Some((certificate, key)) = files(network) {
        for (name, file) in [("certificate", certificate), ("private_key", key)] {
            if file.starts_with('/') {
                page.set(name, &quoted(file));
            } else {
                page.fill_in(name, "\"\"", &format!("the absolute path of {}", bare(file)));
            }
        }
    }
    if let Some(auth) = &robot.auth {
        keys(page, auth);
    }
    Ok(())
}

/// Who may call. Keys are secrets: their ids are named, they themselves stay where they are.
fn keys(page: &mut Page, auth: &Auth) {
    for handler in auth.handlers.iter().flatten() {
        let ids: Vec<String> = handler.key_ids().map(bare).collect();
        match (handler.r#type.as_str(), ids.is_empty()) {
            ("api-key", false) => page.remark(&format!(
                "viam-server asks for API keys; give Lanyard the same ones (`lanyard keys add`). Their ids: {}",
                ids.join(", ")
            )),
            ("api-key", true) => page.remark(
                "viam-server asks for API keys of the older kind, without ids; give Lanyard keys with `lanyard keys add`",
            ),
            (other, _) => page.remark(&format!("not taken over: the auth handler {}", bare(other))),
        }
    }
}

fn upstream(page: &mut Page, robot: &Robot, address: SocketAddr) {
    page.title("The viam-server behind Lanyard: every call that Lanyard does not answer itself goes to it unchanged.");
    page.line("[upstream]");
    let no_tls = robot.network.as_ref().is_some_and(|network| network.no_tls == Some(true));
    if robot.cloud.is_some() && !no_tls {
        page.comment("A viam-server that belongs to Viam's cloud has a certificate from there.");
        page.set("address", &quoted(&format!("https://{address}")));
        page.fill_in(
            "server_name",
            "\"\"",
            "the name in that certificate: the machine's address in the Viam app",
        );
        page.note(
            "the viam-server belongs to Viam's cloud. If its configuration is kept there, this file is only part of \
             it: import what the app shows under CONFIGURE, JSON",
        );
    } else {
        page.set("address", &quoted(&format!("http://{address}")));
    }
    let handlers = robot.auth.iter().flat_map(|auth| auth.handlers.iter().flatten());
    for handler in handlers.filter(|handler| handler.r#type == "api-key") {
        page.comment("Lanyard logs in to viam-server as a client does: with one of its keys, alone in a file that only root reads.");
        let id = handler.key_ids().next().map_or_else(
            || "the id of a key that viam-server accepts".to_owned(),
            |id| bare(id) + ", or another",
        );
        page.fill_in("key_id", "\"\"", &id);
        page.fill_in("key_file", "\"\"", "a file with that key, like \"/etc/lanyard/viam.key\"");
    }
}

/// What stands behind each monitored component, by its key in `[upstream.resources]`; `None`: only a person knows.
type Resources<'a> = BTreeMap<String, (&'a Component, Option<Vec<String>>)>;

/// Names differ within a kind only; where two kinds have the same, the key says which.
fn resources(components: &[Component]) -> Result<Resources<'_>, String> {
    let mut all = Resources::new();
    let monitored = || components.iter().filter(|component| behind::is_monitored(component));
    for component in monitored() {
        let shared = monitored().filter(|other| other.name == component.name).count() > 1;
        let key =
            if shared { format!("{}/{}", component.kind(), component.name) } else { component.name.clone() };
        let motors = behind::motors(component, components)?;
        if all.insert(key, (component, motors)).is_some() {
            return Err(format!(
                "two components of the kind {} are called {:?}",
                component.kind(),
                component.name
            ));
        }
    }
    Ok(all)
}

fn write_resources(page: &mut Page, resources: &Resources<'_>, motors: &Motors<'_>) {
    page.line("");
    page.comment("Which motors stand behind each part that moves. When a session that used it ends, these are stopped over");
    page.comment("CAN, and viam-server is asked to stop the part, too. For a part with [] it is only asked.");
    page.line("[upstream.resources]");
    for (name, (component, behind)) in resources {
        page.comment(&format!("{} ({}, {})", bare(name), component.kind(), bare(&component.model())));
        match behind {
            None => page.fill_in(name, "[\"\"]", "the motors behind it, or [] if none of them is on CAN"),
            Some(behind) => {
                let names: Vec<String> = behind.iter().map(|motor| quoted(motors.name_of(motor))).collect();
                page.set(name, &format!("[{}]", names.join(", ")));
                if behind.is_empty() {
                    page.note(format!(
                        "{} is driven by viam-server itself, not over CAN: Lanyard can only ask viam-server to stop \
                         it, and nothing stops it when viam-server is dead",
                        bare(name)
                    ));
                }
            }
        }
    }
}

/// The motors that modules drive, under names that fit into lanyard.toml.
struct Motors<'a>(Vec<(&'a Component, String)>);

impl<'a> Motors<'a> {
    fn of(components: &'a [Component]) -> Self {
        let mut named: Vec<(&Component, String)> = Vec::new();
        for component in components.iter().filter(|component| Behind::of(component) == Ok(Behind::Itself)) {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let plain: String = component.name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
            let short = plain.get(..LONGEST_NAME).unwrap_or(&plain).to_owned();
            let taken = |name: &str| named.iter().any(|(_, other)| other == name);
            let numbered = (2_usize..).map(|number| {
                let end = format!("-{number}");
                let room = LONGEST_NAME - end.len();
                format!("{}{end}", plain.get(..room).unwrap_or(&plain))
            });
            let free = [short].into_iter().chain(numbered).find(|name| !name.is_empty() && !taken(name));
            named.extend(free.map(|name| (component, name)));
        }
        Self(named)
    }

    /// Its name in lanyard.toml.
    fn name_of<'b>(&'b self, viam: &'b str) -> &'b str {
        self.0.iter().find(|(component, _)| component.name == viam).map_or(viam, |(_, name)| name)
    }
}

fn write_motors(page: &mut Page, components: &[Component], motors: &Motors<'_>) {
    page.title(
        "The CAN bus. One [[bus]] for each interface that has drives; `ip link` shows the interfaces.",
    );
    page.line("[[bus]]");
    page.set("name", "\"can0\"");
    page.title("The motors: what Lanyard stops over CAN. viam-server goes on driving them.");
    if motors.0.is_empty() {
        page.comment("None of viam-server's own drivers uses CAN, and no module of this robot has motors of its own: name the");
        page.comment(
            "drives that hang on CAN here, and in [upstream.resources] the part that they belong to.",
        );
        page.line("[[motor]]");
        page.fill_in("name", "\"\"", "any name");
        motor_keys(page, None);
        if !components.is_empty() {
            page.note("no component is known to be driven over CAN: without a [[motor]] Lanyard has nothing to stop");
        }
    }
    for (place, (component, name)) in motors.0.iter().enumerate() {
        if place > 0 {
            page.line("");
        }
        page.line("[[motor]]");
        page.set("name", &quoted(name));
        if *name != component.name {
            page.remark(&format!("the motor {} of viam-server is called {name} here", bare(&component.name)));
        }
        page.comment(&format!("viam-server: {}", bare(&component.model())));
        page.comment(&format!(
            "Not on CAN? Then delete this [[motor]], and in [upstream.resources] set {} = []",
            toml_key(&component.name)
        ));
        motor_keys(page, Some(component));
    }
}

fn motor_keys(page: &mut Page, component: Option<&Component>) {
    page.fill_in("bus", "\"\"", "the [[bus]] it hangs on");
    page.fill_in("driver", "\"\"", "its drive family; below it the family's own keys, most have a node id");
    page.fill_in(
        "after_stop",
        "\"\"",
        "\"hold\" or \"release\": its torque at standstill; an arm without a brake falls",
    );
    let most = component.and_then(|component| component.attribute("max_rpm")).and_then(Value::as_f64);
    match most.filter(|most| (0.01..=200_000.0).contains(most)) {
        Some(most) => page.set("max_rpm", &most.to_string()),
        None => {
            page.fill_in("max_rpm", "\"\"", "its largest speed, revolutions per minute of the motor shaft")
        }
    }
    let attributes = component.and_then(|component| component.attributes.as_ref()).into_iter().flatten();
    let (shown, hidden): (Vec<_>, Vec<_>) = attributes
        .filter(|(key, _)| *key != "max_rpm")
        .map(|(key, value)| (key, hint(key, value)))
        .partition(|(_, hint)| hint.is_some());
    if !shown.is_empty() {
        let shown: Vec<String> = shown.into_iter().filter_map(|(_, hint)| hint).collect();
        page.comment(&format!("viam-server has: {}", shown.join(", ")));
    }
    if !hidden.is_empty() {
        let hidden: Vec<String> = hidden.into_iter().map(|(key, _)| bare(key)).collect();
        page.comment(&format!("not taken over: {}", hidden.join(", ")));
    }
}

/// A setting that may tell which drive it is. A text could be a secret, unless it is where the drive is connected.
fn hint(key: &str, value: &Value) -> Option<String> {
    let connects =
        ["can", "bus", "interface", "channel"].iter().any(|word| key.to_lowercase().contains(word));
    match value {
        Value::Number(number) => Some(format!("{} = {number}", bare(key))),
        Value::Bool(flag) => Some(format!("{} = {flag}", bare(key))),
        Value::String(text) if connects => Some(format!("{} = {}", bare(key), bare(text))),
        _ => None,
    }
}

/// viam-server drives its bases; these are the figures in case Lanyard should.
fn write_bases(page: &mut Page, components: &[Component], motors: &Motors<'_>) {
    for component in components.iter().filter(|component| component.kind() == "base") {
        let Ok(Behind::Others(_)) = Behind::of(component) else { continue };
        page.title(&format!("The base {}, which viam-server drives.", bare(&component.name)));
        page.comment("If Lanyard itself should drive it, take base and motors out of viam-server and of [upstream.resources],");
        page.comment("and take the \"#\" away here:");
        page.line("#[[base]]");
        page.line(&format!("#name = {}", quoted(&component.name)));
        for side in ["left", "right"] {
            let names: Vec<String> = match component.attribute(side) {
                Some(Value::String(name)) => vec![quoted(motors.name_of(name))],
                Some(Value::Array(names)) => {
                    names.iter().filter_map(Value::as_str).map(|name| quoted(motors.name_of(name))).collect()
                }
                _ => Vec::new(),
            };
            page.line(&format!("#{side} = [{}]", names.join(", ")));
        }
        for key in ["wheel_circumference_mm", "width_mm"] {
            let figure = component.attribute(key).and_then(Value::as_f64);
            page.line(&format!("#{key} = {}", figure.map_or("\"\"".to_owned(), |figure| figure.to_string())));
        }
        let used = ["left", "right", "wheel_circumference_mm", "width_mm"];
        let rest: Vec<String> = component
            .attributes
            .iter()
            .flat_map(BTreeMap::keys)
            .filter(|key| !used.contains(&key.as_str()))
            .map(|key| bare(key))
            .collect();
        if !rest.is_empty() {
            page.comment(&format!("not taken over: {}", rest.join(", ")));
        }
    }
}

/// Everything that has no place above.
fn leftovers(page: &mut Page, robot: &Robot, components: &[Component]) {
    let mut unread = Vec::new();
    let network = robot.network.as_ref();
    let sessions = network.and_then(|network| network.sessions.as_ref());
    let parts = [
        ("", Some(&robot.rest)),
        ("auth.", robot.auth.as_ref().map(|auth| &auth.rest)),
        ("network.", network.map(|network| &network.rest)),
        ("network.sessions.", sessions.map(|sessions| &sessions.rest)),
    ];
    for (path, rest) in parts {
        unread.extend(
            rest.into_iter().flatten().flat_map(|(key, value)| entries(&format!("{path}{key}"), value)),
        );
    }
    for component in components {
        let own = |key: &&String| !VIAMS_OWN.contains(&key.as_str());
        let keys = component.rest.keys().filter(own);
        unread.extend(keys.map(|key| format!("component {}: {}", bare(&component.name), bare(key))));
    }
    let through: Vec<&Component> =
        components.iter().filter(|component| !behind::is_monitored(component)).collect();
    if unread.is_empty() && through.is_empty() {
        return;
    }
    page.title("What has no place in this file. It stays in viam-server, and its calls pass through.");
    for component in through {
        let kind = if component.kind().is_empty() { "no type" } else { component.kind() };
        page.comment(&format!("{} ({}, {})", bare(&component.name), bare(kind), bare(&component.model())));
    }
    let moving = components.iter().any(|component| component.kind() == "board");
    if moving {
        page.remark(
            "what a board's pins switch on is under no session, in viam-server or here: nothing stops it",
        );
    }
    for part in unread {
        page.comment(&format!("not read: {part}"));
        page.note(format!("not read: {part}"));
    }
}

/// A part that is not read: each entry of a list by its name, with what follows from it.
fn entries(path: &str, value: &Value) -> Vec<String> {
    let path = bare_path(path);
    let effect = match path.as_str() {
        "services" => ": what it moves is under no session, in viam-server or here",
        "remotes" => ": name its parts that move in [upstream.resources], as \"REMOTE:PART\"",
        "fragments" | "fragment_mods" => {
            ": its components are not in this file; import the whole configuration"
        }
        _ => "",
    };
    let Value::Array(list) = value else { return vec![format!("{path}{effect}")] };
    let entry = |(place, value): (usize, &Value)| {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(bare);
        let name = text("name").or_else(|| text("id")).map(|name| format!(" {name}"));
        format!("{path}[{place}]{}{effect}", name.unwrap_or_default())
    };
    list.iter().enumerate().map(entry).collect()
}

/// A text of the JSON in a message: quoted, and nothing in it acts.
fn bare(text: &str) -> String {
    format!("{text:?}")
}

/// A path of keys, as it is where it is harmless.
fn bare_path(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if path.chars().all(plain) { path.to_owned() } else { bare(path) }
}

/// A TOML text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn toml_key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { quoted(key) }
}
