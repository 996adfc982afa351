//! `aldis-sim bridge`: the modems of a scenario on ports of this machine, its packet bearers between loopback addresses, in real
//! time, for whatever software is to be tested.
//!
//! One line per port says where it is; one line per thing that happens in the air follows, `+SECONDS EVENT key=value ...` in the
//! scenario's time, flushed. Traffic, orders and restarts of the scenario belong to nodes, and here the nodes are the user's.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aldis::time::{Duration, Instant};
use aldis::units::show_duration;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::{Bridge, Clock, Frequency, Place, Port, PortPaths, Sight};
use crate::codec2::air::Air;
use crate::ether::{Ether, StationId};
use crate::modem::ModemOutput;
use crate::packet::PacketNet;
use crate::packet::udp::{self, Sockets};
use crate::scenario::{Satcom, Scenario, What};

/// What `aldis-sim bridge` was asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// The scenario's file.
    pub scenario: PathBuf,
    /// Where terminals and sockets appear; `None` is a directory that is removed at the end.
    pub directory: Option<PathBuf>,
    /// How fast time runs.
    pub speed: f64,
    /// Everything random follows from it.
    pub seed: u64,
    /// Print each event as a JSON document instead of a line.
    pub json: bool,
}

/// Serves the ports until Ctrl-C, SIGTERM or the end of the scenario. Exit code 2 when it cannot begin.
pub fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(play(options)),
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("aldis-sim: {}: {why}", options.scenario.display());
            ExitCode::from(2)
        }
    }
}

async fn play(options: &Options) -> Result<(), String> {
    let text = std::fs::read_to_string(&options.scenario).map_err(|e| e.to_string())?;
    let beside = options.scenario.parent().unwrap_or(Path::new("."));
    let scenario = Scenario::parse_in(&text, beside).map_err(|problems| problems.join("\n"))?;
    let plain =
        |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if let Some(name) = scenario.stations.iter().find(|name| !plain(name)) {
        return Err(format!("station {name:?}: its files are named after it, so letters, digits, - and _ only"));
    }
    let temporary = tempfile::Builder::new().prefix("aldis-bridge-").tempdir().map_err(|e| e.to_string())?;
    let directory = options.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let directory = std::fs::create_dir_all(&directory)
        .and_then(|()| directory.canonicalize())
        .map_err(|e| format!("{}: {e}", directory.display()))?;
    let stage = Stage { scenario: &scenario, json: options.json };
    match scenario.codec2 {
        None => serve(Ether::new(scenario.ether(options.seed)), options, &stage, &directory).await,
        Some(setup) => {
            let mut air = Air::new(setup, options.seed, &scenario.modems)?;
            let ids = || (0..air.stations()).map(StationId);
            let ends: Vec<_> = ids().flat_map(|a| ids().map(move |b| (a, b))).collect();
            for (from, to) in ends.into_iter().filter(|ends| !scenario.links.contains_key(ends)) {
                air.remove(from, to);
            }
            serve(air, options, &stage, &directory).await
        }
    }
}

/// Opens the ports, says where they are, and runs.
async fn serve(air: impl Frequency, options: &Options, stage: &Stage<'_>, directory: &Path) -> Result<(), String> {
    let scenario = stage.scenario;
    let ids = || (0..air.stations()).map(StationId);
    let ports = ids().map(|id| match scenario.tcp.get(&id) {
        Some(addresses) => Port::Tcp(*addresses),
        None => Port::Terminal(PortPaths {
            tty_link: directory.join(format!("{}.tty", scenario.station(id))),
            socket: directory.join(format!("{}.lines", scenario.station(id))),
        }),
    });
    let ports: Vec<Port> = ports.collect();
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let clock = Clock::start(options.speed);
    let mut bridge = Bridge::open(air, clock, ports).await.map_err(|e| e.to_string())?;
    bridge.play(&scenario.events);
    for (id, unkey_after) in &scenario.keyed_by_bytes {
        bridge.key_by_bytes(*id, *unkey_after);
    }
    let mut packets = JoinSet::new();
    for satcom in scenario.satcoms.iter().filter(|s| !s.ports.is_empty()) {
        let sockets = Sockets::of(satcom).map_err(|e| format!("satcom {}: {e}", satcom.name))?;
        stage.satcom(satcom, &sockets);
        let net = PacketNet::new(satcom.net(options.seed));
        packets.spawn(udp::serve(net, clock, sockets, std::future::pending()));
    }
    for (id, place) in (0..).map(StationId).zip(bridge.places()) {
        stage.port(id, place);
    }
    let theirs = |what: &What| !matches!(what, What::Path { .. } | What::Failure { .. });
    let datagrams: usize = scenario.satcoms.iter().map(|s| s.datagrams.len()).sum();
    let left_out = datagrams + scenario.traffic.len() + scenario.events.iter().filter(|e| theirs(&e.what)).count();
    if left_out > 0 {
        eprintln!(
            "aldis-sim: {left_out} messages, datagrams, orders and restarts of the scenario are left to the nodes"
        );
    }
    let end = tokio::time::sleep_until(clock.real(Instant::ZERO + scenario.duration));
    let over = async {
        tokio::select! {
            () = end => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    bridge.run(over, |at, sight| stage.show(at, sight)).await;
    stage.say(clock.now(), "end", &[]);
    Ok(())
}

/// What is printed.
struct Stage<'s> {
    scenario: &'s Scenario,
    json: bool,
}

impl Stage<'_> {
    /// Where a station's modem is, and how the product would be told.
    fn port(&self, id: StationId, place: &Place) {
        let station = Value::from(self.scenario.station(id));
        let stanza = self.stanza(id, place);
        let (kind, data, lines) = match place {
            Port::Terminal(at) => ("pty", at.tty_link.display().to_string(), at.socket.display().to_string()),
            Port::Tcp(at) => ("tcp", at.data.to_string(), at.control.to_string()),
        };
        let mut fields =
            vec![("station", station), ("kind", kind.into()), ("data", data.into()), ("lines", lines.into())];
        match stanza {
            Some(stanza) if self.json => {
                fields.push(("bearer", stanza.into()));
                self.say(Instant::ZERO, "port", &fields);
            }
            Some(stanza) => {
                self.say(Instant::ZERO, "port", &fields);
                print(&stanza);
            }
            None => self.say(Instant::ZERO, "port", &fields),
        }
    }

    /// Where the programs of a packet bearer bind, and where they find each other.
    fn satcom(&self, satcom: &Satcom, sockets: &Sockets) {
        for (name, node) in satcom.members.iter().zip(sockets.nodes()) {
            let groups = satcom.groups.iter().zip(&node.groups).map(|(group, address)| format!("{group}@{address}"));
            let ports: Vec<String> = satcom.ports.iter().map(u16::to_string).collect();
            let fields = [
                ("satcom", satcom.name.as_str().into()),
                ("node", name.as_str().into()),
                ("bind", node.host.to_string().into()),
                ("others_see", node.avatar.to_string().into()),
                ("groups", groups.collect::<Vec<_>>().join(",").into()),
                ("udp", ports.join(",").into()),
            ];
            self.say(Instant::ZERO, "satcom", &fields);
        }
    }

    /// The `[[bearer]]` of a profile for this port; the product opens a terminal and its lines, so a TCP port has none, nor has one keyed by its bytes.
    fn stanza(&self, id: StationId, place: &Place) -> Option<String> {
        let Port::Terminal(at) = place else { return None };
        if self.scenario.keyed_by_bytes.contains_key(&id) {
            return None;
        }
        let modem = self.scenario.modems.get(usize::from(id.0))?;
        let others = self.scenario.stations.iter().enumerate().filter(|(i, _)| *i != usize::from(id.0));
        let peers: Vec<String> = others.map(|(_, name)| format!("{name:?}")).collect();
        Some(format!(
            "[[bearer]]\nname = \"hf1\"\ndevice = \"{}\"\nkeying = {{ socket = \"{}\" }}\nmodem = \"{}\"\nrate = \"{}bps\"\n\
             interleaver = \"{}\"\nturnaround = \"{}\"\nstation = {id}\npeers = [{}]\nemcon = \"open\"\n",
            at.tty_link.display(),
            at.socket.display(),
            if self.scenario.codec2.is_some() { "freedv" } else { "simulated" },
            modem.waveform.rate,
            modem.waveform.interleaver,
            show_duration(modem.turnaround),
            peers.join(", "),
        ))
    }

    fn show(&self, at: Instant, sight: Sight<'_>) {
        let name = |id: StationId| Value::from(self.scenario.station(id));
        match sight {
            Sight::Modem(id, ModemOutput::Antenna { on, at }) => {
                self.say(*at, if *on { "antenna-on" } else { "antenna-off" }, &[("station", name(id))]);
            }
            Sight::Modem(id, ModemOutput::Received(bytes)) => {
                self.say(at, "received", &[("station", name(id)), ("bytes", bytes.len().into())]);
            }
            Sight::Modem(id, ModemOutput::Fault(text)) => {
                self.say(at, "fault", &[("station", name(id)), ("detail", text.as_str().into())]);
            }
            Sight::Modem(..) => {}
            Sight::Event(What::Path { from, to, up }) => {
                let event = if *up { "path-up" } else { "path-down" };
                self.say(at, event, &[("from", name(*from)), ("to", name(*to))]);
            }
            Sight::Event(What::Failure { station, failure, broken }) => {
                let event = if *broken { "broken" } else { "mended" };
                self.say(at, event, &[("station", name(*station)), ("failure", format!("{failure:?}").into())]);
            }
            Sight::Event(_) => {}
        }
    }

    fn say(&self, at: Instant, event: &str, fields: &[(&str, Value)]) {
        let seconds = at.since(Instant::ZERO).max(Duration::ZERO).as_secs_f64();
        if self.json {
            let mut document = serde_json::json!({ "schema": "aldis-sim.bridge/1", "at_s": seconds, "event": event });
            if let Some(map) = document.as_object_mut() {
                map.extend(fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
            }
            return print(&format!("{document}\n"));
        }
        let shown = |(k, v): &(&str, Value)| match v.as_str() {
            // Only what holds a blank needs marks.
            Some(text) if !text.contains(' ') => format!(" {k}={text}"),
            _ => format!(" {k}={v}"),
        };
        print(&format!("+{seconds:.3} {event}{}\n", fields.iter().map(shown).collect::<String>()));
    }
}

/// A reader that has gone ends nothing: the ports stay.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
