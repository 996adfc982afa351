//! Multicast nets of real processes on the loopback interface: MULE over P_MUL, dynamic groups there, and Aldis mode.

mod aldis_mode;
mod groups;
mod lab;
mod mule;
#[path = "../common/pcap.rs"]
mod pcap;
#[path = "../common/process.rs"]
mod process;
