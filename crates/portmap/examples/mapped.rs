//! Maps a UDP port at the router and tells what comes of it, until standard input ends.
//!
//! ```text
//! mapped PORT
//! ```

use ahoy_portmap::PortMapper;
use std::io::Read;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("mapped PORT");
        std::process::exit(2);
    };
    let mapper = PortMapper::start(port, Some(port), u64::from(std::process::id()));
    let mut addresses = mapper.addresses();
    let (over, mut is_over) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = over.send(());
    });
    loop {
        println!("{:?}", *addresses.borrow_and_update());
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { break },
            _ = &mut is_over => break,
        }
    }
    mapper.stop().await;
    println!("stopped");
}
