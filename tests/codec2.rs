//! Mail across a waveform nobody here wrote: FreeDV's modem out of libcodec2, over a fading audio channel.
//!
//! Without the library the test prints a skip; with CI=true it fails.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use aldis_sim::codec2::air::{Air, Setup};
use aldis_sim::codec2::modem::Mode;
use aldis_sim::codec2::{audio, available};
use aldis_sim::modem::ModemConfig;
use lab::{KEY, Lab, assert_unharmed};
use process::{message, send};

#[test]
fn mail_crosses_a_real_waveform_on_a_fading_path_octet_for_octet() {
    if let Err(why) = available() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
        println!("skip: {why}");
        return;
    }
    let setup = Setup { mode: Mode::Datac1, spread: audio::path("mpp").expect("known"), snr_db: 9.0 };
    let modem = ModemConfig::new(setup.mode.waveform());
    let air = Air::new(setup, 1, &[modem.clone(), modem]).expect("the library is here");
    let mut lab = Lab::at_speed(10.0);
    lab.link_over("hf1", &["shore", "ship"], air);
    for name in ["ship", "shore"] {
        let simulated = "modem = \"simulated\"\nrate = \"2400bps\"\ninterleaver = \"S\"";
        let freedv = "modem = \"freedv\"\nrate = \"924bps\"\ninterleaver = \"datac1\"";
        let profile = lab.pair_profile(name, KEY, "").replace(simulated, freedv);
        assert!(profile.contains(freedv));
        lab.start(name, &profile);
    }
    // Long enough for several bursts once it is compressed.
    let words: String = (0..220u32).map(|i| format!("{:04x} ", i.wrapping_mul(2_654_435_761) >> 15)).collect();
    let sent = message(
        "codec2.1",
        &words.as_bytes().chunks(60).map(|c| String::from_utf8_lossy(c)).collect::<Vec<_>>().join("\r\n"),
    );
    send(lab.address("ship"), "<ops@ship.example>", &[("watch@shore.example", "")], &sent);
    let mail = lab.arrival("shore", "watch", "codec2.1@ship.example");
    assert_unharmed(&sent, &mail, false);
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 1, "one copy");
    assert!(lab.count("ship", "key-down") >= 1);
}
