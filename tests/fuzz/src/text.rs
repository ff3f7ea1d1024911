//! What people type or paste: network links and names.

use crate::Target;
use crate::samples::samples;
use ahoy_protocol::{Name, NetworkLink};

pub(crate) fn targets() -> Vec<Target> {
    vec![Target { name: "text_network_link", run: network_link, seeds: links }, Target { name: "text_name", run: name, seeds: names }]
}

fn network_link(bytes: &[u8]) {
    let Ok(link) = String::from_utf8_lossy(bytes).parse::<NetworkLink>() else { return };
    assert_eq!(link.to_string().parse(), Ok(link), "a network link reads back");
}

fn name(bytes: &[u8]) {
    let Ok(name) = Name::parse(&String::from_utf8_lossy(bytes)) else { return };
    assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(&name), "a name is its own comparable form");
    assert_eq!(Name::try_from(String::from(name.clone())), Ok(name), "a name reads back from the wire");
}

fn links() -> Vec<Vec<u8>> {
    let hosts = ["login.example", "192.0.2.7", "2001:db8::7"];
    let link = |host: &str| NetworkLink { host: host.to_owned(), port: 7300, network: samples().id() };
    hosts.iter().map(|host| link(host).to_string().into_bytes()).collect()
}

fn names() -> Vec<Vec<u8>> {
    ["bob", "Jürgen", "Ju\u{308}rgen", "иван", "ｂｏｂ", "a.b_c-d", "ǅ", "İi"].iter().map(|name| name.as_bytes().to_vec()).collect()
}
