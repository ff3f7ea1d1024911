//! The protocol pages name every message, and every constant that they name exists.

use ahoy_architecture::{read, sources, wire_types};

#[test]
fn every_message_has_its_place_in_the_protocol_pages() {
    let pages: String = sources("docs/protocol", &[".md"]).into_iter().map(|page| page.text).collect();
    for name in wire_types() {
        assert!(pages.contains(&format!("`{name}`")), "no page in docs/protocol says what `{name}` is");
    }
}

#[test]
fn every_constant_that_a_document_names_exists() {
    let mut code = String::new();
    for folder in ["client", "login-server", "supernode", "relay", "crates", "tests"] {
        code.extend(sources(folder, &[".rs"]).into_iter().map(|source| source.text));
    }
    code.push_str(&read("Makefile"));
    code.push_str(&read(".ci/run"));
    for page in sources("docs", &[".md"]) {
        for word in page.text.split('`').skip(1).step_by(2).filter(|word| is_constant(word)) {
            let name = word.rsplit("::").next().unwrap_or(word);
            assert!(code.contains(name), "{} names `{word}`, which no source file has", page.path);
        }
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    for page in sources("", &[".md"]) {
        let folder = ahoy_architecture::root().join(&page.path);
        let folder = folder.parent().expect("a file lies in a folder");
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{} links to {target}, which does not exist", page.path);
            }
        }
    }
}

/// Capitals with an underscore, as `Type::NAME_MAX` or alone. Fenced blocks fall out: their insides are long.
fn is_constant(word: &str) -> bool {
    let name = word.rsplit("::").next().unwrap_or(word);
    name.len() < 48 && name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
