//! Canonical XML 1.1 (W3C Recommendation of 2008-05-02), without comments, of what [`xml`](super::xml) reads.
//!
//! In that subset there are no attributes of the `xml` prefix to inherit and no `xmlns=""`, so that the rules that remain are:
//! UTF-8; start and end tags; namespace declarations that are not in force already, by prefix, before attributes by namespace
//! and name; six characters escaped.

use std::collections::BTreeMap;

use super::xml::{Element, Node};

/// Namespaces by prefix, those that are written already.
type Scope<'a> = BTreeMap<&'a str, &'a str>;

/// A whole document, without `omitted` of the elements directly in it: the enveloped-signature transform.
#[must_use]
pub fn document(root: &Element, omitted: Option<&Element>) -> Vec<u8> {
    let mut out = Vec::new();
    write(root, &[], &Scope::new(), omitted, &mut out);
    out
}

/// One element inside of a document: `ancestors`, outermost first, lend it their namespaces (section 2.3).
#[must_use]
pub fn apex(element: &Element, ancestors: &[&Element]) -> Vec<u8> {
    let mut out = Vec::new();
    write(element, ancestors, &Scope::new(), None, &mut out);
    out
}

fn write<'a>(
    element: &'a Element,
    ancestors: &[&'a Element],
    outer: &Scope<'a>,
    omitted: Option<&Element>,
    out: &mut Vec<u8>,
) {
    let mut declared: Scope<'a> = BTreeMap::new();
    for (prefix, uri) in ancestors
        .iter()
        .chain([&element])
        .flat_map(|element| &element.declarations)
    {
        declared.insert(prefix, uri);
    }
    declared.retain(|prefix, uri| outer.get(prefix) != Some(uri));

    out.push(b'<');
    write_name(&element.prefix, &element.local, out);
    for (prefix, uri) in &declared {
        out.extend(if prefix.is_empty() {
            b" xmlns".as_slice()
        } else {
            b" xmlns:"
        });
        out.extend(prefix.as_bytes());
        write_value(uri, out);
    }
    let mut attributes: Vec<_> = element.attributes.iter().collect();
    attributes.sort_by(|a, b| (&a.namespace, &a.local).cmp(&(&b.namespace, &b.local)));
    for attribute in attributes {
        out.push(b' ');
        write_name(&attribute.prefix, &attribute.local, out);
        write_value(&attribute.value, out);
    }
    out.push(b'>');

    let mut scope = outer.clone();
    scope.extend(declared);
    for node in &element.children {
        match node {
            Node::Text(text) => write_text(text, out),
            Node::Element(child) if omitted.is_some_and(|omitted| std::ptr::eq(omitted, child)) => {}
            Node::Element(child) => write(child, &[], &scope, None, out),
        }
    }
    out.extend(b"</");
    write_name(&element.prefix, &element.local, out);
    out.push(b'>');
}

fn write_name(prefix: &str, local: &str, out: &mut Vec<u8>) {
    if !prefix.is_empty() {
        out.extend(prefix.as_bytes());
        out.push(b':');
    }
    out.extend(local.as_bytes());
}

fn write_value(value: &str, out: &mut Vec<u8>) {
    out.extend(b"=\"");
    for byte in value.bytes() {
        match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'"' => out.extend(b"&quot;"),
            b'\t' => out.extend(b"&#x9;"),
            b'\n' => out.extend(b"&#xA;"),
            b'\r' => out.extend(b"&#xD;"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'\r' => out.extend(b"&#xD;"),
            byte => out.push(byte),
        }
    }
}
