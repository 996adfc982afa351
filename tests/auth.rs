//! Logging in to a running node inside TLS: SCRAM with and without channel binding, PLAIN of the same users, client certificates.

#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use process::Running;
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PASSWORD: &str = "s3cret One";

struct House {
    node: Running,
    directory: tempfile::TempDir,
}

/// An authority, a server, one user with a password and a certificate each, one with a certificate alone; and a stranger's authority.
fn house() -> House {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, text: String| std::fs::write(at(name), text).expect("written");
    for authority in ["ca", "stranger"] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        write(&format!("{authority}.pem"), params.self_signed(&key).expect("signed").pem());
        let issuer = rcgen::Issuer::new(params, key);
        for (owner, name) in [
            ("server", rcgen::SanType::DnsName("mx.test".try_into().expect("ascii"))),
            ("op1", rcgen::SanType::Rfc822Name("Op1@ship.example".try_into().expect("ascii"))),
            ("op2", rcgen::SanType::DnsName("op2.ship.example".try_into().expect("ascii"))),
            ("nobody", rcgen::SanType::Rfc822Name("nobody@ship.example".try_into().expect("ascii"))),
        ] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names.push(name);
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            write(&format!("{authority}.{owner}.crt"), certificate.pem());
            write(&format!("{authority}.{owner}.key"), key.serialize_pem());
        }
    }
    let verifier = aldis::config::scram_verifier(PASSWORD, b"sixteen octets..").expect("made");
    let tls = "tls = { certificate = \"ca.server.crt\", key = \"ca.server.key\"";
    write(
        "profile.toml",
        format!(
            "[node]\nname = \"ship\"\npostmaster = \"postmaster@ship.example\"\n\n\
             [[listener]]\nname = \"implicit\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n\
             {tls}, client_ca = \"ca.pem\", implicit = true }}\n\n\
             [[listener]]\nname = \"starttls\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n{tls} }}\n\n\
             [[user]]\nname = \"op1\"\npassword_hash = \"{verifier}\"\ncertificate = \"op1@ship.example\"\n\n\
             [[user]]\nname = \"op2\"\ncertificate = \"op2.ship.example\"\n\n\
             [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n[local]\nusers = [\"postmaster\"]\n"
        ),
    );
    let profile = at("profile.toml");
    House { node: Running::start(&profile, directory.path(), &[]), directory }
}

impl House {
    fn address(&self, listener: &str) -> SocketAddr {
        self.node.listeners.iter().find(|(name, _)| name == listener).expect("a listener").1
    }

    /// A connection with TLS on and EHLO said; `certificate` names the files of the client's.
    fn connect(&self, listener: &str, certificate: Option<&str>, old: bool) -> std::io::Result<Client> {
        let config = client(self.directory.path(), certificate, old);
        let mut stream = TcpStream::connect(self.address(listener))?;
        if listener == "starttls" {
            let mut plain = BufReader::new(stream.try_clone()?);
            for (say, want) in [("", "220"), ("EHLO c.test\r\n", "250"), ("STARTTLS\r\n", "220")] {
                stream.write_all(say.as_bytes())?;
                let mut line = String::from("-000-");
                while line.as_bytes().get(3) == Some(&b'-') || line.starts_with('-') {
                    line.clear();
                    plain.read_line(&mut line)?;
                }
                assert!(line.starts_with(want), "{say}: {line}");
            }
        }
        let name = ServerName::try_from("mx.test").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("settings");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let exporter = connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
        let exporter: [u8; 32] = exporter.expect("after the handshake");
        let mut client = Client { stream: BufReader::new(StreamOwned::new(connection, stream)), exporter };
        if listener == "implicit" {
            client.reply()?;
        }
        Ok(client)
    }
}

fn client(directory: &Path, certificate: Option<&str>, old: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem")).expect("PEM")).expect("an authority");
    let versions: &[&rustls::SupportedProtocolVersion] =
        if old { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::from_pem_file(directory.join(format!("{name}.crt"))).expect("PEM");
            let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).expect("PEM");
            builder.with_client_auth_cert(vec![chain], key).expect("they fit")
        }
    }
}

struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    exporter: [u8; 32],
}

impl Client {
    fn reply(&mut self) -> std::io::Result<String> {
        let mut text = String::new();
        loop {
            let from = text.len();
            if self.stream.read_line(&mut text)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if text.as_bytes().get(from + 3) != Some(&b'-') {
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
    }

    fn say(&mut self, line: &str) -> std::io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// The whole of SCRAM as a client; the last reply.
    fn scram(&mut self, flag: &str, binding: &[u8], user: &str, password: &str) -> std::io::Result<String> {
        let mechanism = if flag.starts_with('p') { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" };
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        let first = BASE64.encode(format!("{flag},,{bare}").as_bytes());
        let reply = self.say(&format!("AUTH {mechanism} {first}"))?;
        let Some(challenge) = reply.strip_prefix("334 ") else { return Ok(reply) };
        let challenge = String::from_utf8(BASE64.decode(challenge.as_bytes()).expect("base64")).expect("text");
        let part = |key: &str| challenge.split(',').find_map(|p| p.strip_prefix(key)).expect("a part").to_owned();
        let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let mut salted = [0; 32];
        let iterations: NonZeroU32 = part("i=").parse().expect("a number");
        let salt = BASE64.decode(part("s=").as_bytes()).expect("base64");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = sign(&salted, "Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let bound = BASE64.encode(&[format!("{flag},,").as_bytes(), binding].concat());
        let claim = format!("c={bound},r={}", part("r="));
        let said = format!("{bare},{challenge},{claim}");
        let signature = sign(stored_key.as_ref(), &said);
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let last = format!("{claim},p={}", BASE64.encode(&proof));
        let reply = self.say(&BASE64.encode(last.as_bytes()))?;
        let Some(verdict) = reply.strip_prefix("334 ") else { return Ok(reply) };
        let server_key = sign(&salted, "Server Key");
        let right = format!("v={}", BASE64.encode(sign(server_key.as_ref(), &said).as_ref()));
        assert_eq!(BASE64.decode(verdict.as_bytes()).expect("base64"), right.as_bytes(), "the server proves itself");
        self.say("")
    }
}

#[test]
fn scram_logs_in_bound_to_its_channel_or_not_and_plain_with_the_same_verifier() {
    let house = house();
    for (listener, old) in [("starttls", false), ("implicit", false), ("starttls", true)] {
        let open = || {
            let mut client = house.connect(listener, None, old).expect("TLS");
            let offer = client.say("EHLO c.test").expect("a reply");
            let line = offer.lines().find(|l| l[4..].starts_with("AUTH")).expect("AUTH").trim_end()[4..].to_owned();
            let plus = if old { "" } else { "SCRAM-SHA-256-PLUS " };
            assert_eq!(line, format!("AUTH {plus}SCRAM-SHA-256 PLAIN"), "nobody showed a certificate");
            client
        };
        let mut client = open();
        assert!(client.scram("n", b"", "op1", PASSWORD).expect("a reply").starts_with("235 2.7.0"));
        assert!(client.say("MAIL FROM:<op1@ship.example>").expect("a reply").starts_with("250"));
        for (user, password) in [("op1", "wrong"), ("op2", PASSWORD), ("stranger", PASSWORD)] {
            assert!(open().scram("n", b"", user, password).expect("a reply").starts_with("535 5.7.8"), "{user}");
        }
        let mut client = open();
        let binding = client.exporter;
        let reply = client.scram("p=tls-exporter", &binding, "op1", PASSWORD).expect("a reply");
        assert!(reply.starts_with(if old { "504" } else { "235" }), "{reply}");
        let reply = open().scram("y", b"", "op1", PASSWORD).expect("a reply");
        assert!(reply.starts_with(if old { "235" } else { "535" }), "{reply}");
        if !old {
            let reply = open().scram("p=tls-exporter", &[0; 32], "op1", PASSWORD).expect("a reply");
            assert!(reply.starts_with("535"), "{reply}");
        }
        let mut client = open();
        let plain = BASE64.encode(format!("\0op1\0{PASSWORD}").as_bytes());
        assert!(client.say(&format!("AUTH PLAIN {plain}")).expect("a reply").starts_with("235"));
    }
    house.node.stop();
}

#[test]
fn a_certificate_logs_in_whom_it_names_and_a_strangers_does_not_get_in_at_all() {
    let house = house();
    let open = |certificate| {
        let mut client = house.connect("implicit", Some(certificate), false).expect("TLS");
        let offer = client.say("EHLO c.test").expect("a reply");
        assert!(offer.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL PLAIN"), "{offer}");
        client
    };
    let asked = |user: &str| format!("AUTH EXTERNAL {}", BASE64.encode(user.as_bytes()));
    for (certificate, line, want) in [
        ("ca.op1", "AUTH EXTERNAL =".to_owned(), "235"),
        ("ca.op2", "AUTH EXTERNAL =".to_owned(), "235"),
        ("ca.op2", asked("op2"), "235"),
        ("ca.op2", asked("op1"), "535"),
        ("ca.nobody", "AUTH EXTERNAL =".to_owned(), "535"),
        ("ca.nobody", asked("op1"), "535"),
    ] {
        let reply = open(certificate).say(&line).expect("a reply");
        assert!(reply.starts_with(want), "{certificate} {line}: {reply}");
    }
    let stranger = house.connect("implicit", Some("stranger.op1"), false);
    assert!(stranger.and_then(|mut c| c.say("EHLO c.test")).is_err(), "a stranger's authority");
    // Where no certificate is asked for, none counts.
    let mut client = house.connect("starttls", Some("ca.op1"), false).expect("TLS");
    assert!(!client.say("EHLO c.test").expect("a reply").contains("EXTERNAL"));
    assert!(client.say("AUTH EXTERNAL =").expect("a reply").starts_with("504"));
    house.node.stop();
}
