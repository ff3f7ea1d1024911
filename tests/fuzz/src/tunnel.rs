//! What comes out of a TCP connection that claims to be a tunnel, and what people type for a proxy.

use crate::Target;
use ahoy_protocol::tunnel::{DATAGRAM_BYTES_MAX, frame, parse_frame};
use ahoy_transport::{FrameReader, Proxy};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "tunnel_frame", run: one_frame, seeds: frame_seeds },
        Target { name: "tunnel_stream", run: stream, seeds: frame_seeds },
        Target { name: "tunnel_proxy", run: proxy, seeds: proxy_seeds },
    ]
}

/// What is read encodes to the bytes that it came from.
fn one_frame(bytes: &[u8]) {
    if let Ok(Some((datagram, used))) = parse_frame(bytes) {
        assert_eq!(frame(datagram).expect("what was within the limit stays within it"), bytes[..used]);
    }
}

/// The same datagrams, and the same end, however the stream is cut.
fn stream(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    for step in [1, 2, 3, 100, 1473] {
        assert_eq!(read(bytes, step), whole, "cut every {step} bytes");
    }
    assert!(whole.0.iter().all(|datagram| (1..=DATAGRAM_BYTES_MAX).contains(&datagram.len())));
}

/// The datagrams, and whether it went well to the end.
fn read(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut reader, mut datagrams) = (FrameReader::new(), Vec::new());
    for mut part in bytes.chunks(step) {
        while !part.is_empty() {
            let space = reader.space();
            let count = part.len().min(space.len());
            assert!(count > 0, "the reader is full and gives nothing");
            space[..count].copy_from_slice(&part[..count]);
            if reader.filled(count, &mut |datagram| datagrams.push(datagram.to_vec())).is_err() {
                return (datagrams, false);
            }
            part = &part[count..];
        }
    }
    (datagrams, true)
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let framed = |datagram: &[u8]| frame(datagram).expect("within the limit");
    let several = [framed(&[0x40; 60]), framed(&[]), framed(&[0x0f; DATAGRAM_BYTES_MAX]), framed(&[0x10; 64])].concat();
    vec![framed(b"ahoy"), several, vec![0xff, 0xff]]
}

/// What is a proxy reads back, and shows nobody its password.
fn proxy(bytes: &[u8]) {
    let Ok(proxy) = Proxy::parse(&String::from_utf8_lossy(bytes)) else { return };
    assert_eq!(Proxy::parse(&proxy.to_url()).as_ref(), Ok(&proxy), "a proxy reads back");
    assert!(!proxy.to_string().contains('@'), "a user name is shown");
}

fn proxy_seeds() -> Vec<Vec<u8>> {
    let texts = ["http://proxy.example:3128", "socks5h://user:p%40ss@192.0.2.1", "proxy.example:1", "http://[2001:db8::1]:3128"];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
