//! The subset of XML that a reference integrity manifest is written in: everything else is refused, not skipped.
//!
//! Left out because a document that has no use for it can only hide something behind it: document type definitions,
//! entities, comments (a reader that joins the text around a comment and one that does not see different values), processing
//! instructions, CDATA sections, attributes of the `xml` prefix, attributes that could be a signature's target (`Id`), a prefix
//! that is bound again to something else while it is in scope, names outside of ASCII, other encodings than UTF-8.
//! What remains is well-formed XML 1.0 with namespaces, and reads the same everywhere.

use quick_xml::Reader;
use quick_xml::events::{BytesDecl, BytesStart, Event};

/// Longest document in bytes. Real manifests have 20 to 30 KiB.
pub const MAX_DOCUMENT_LEN: usize = 256 * 1024;
/// Deepest nesting of elements; a manifest's signature has 6.
pub const MAX_DEPTH: usize = 12;
/// Most elements of a document; real manifests have under 100.
pub const MAX_ELEMENTS: usize = 1024;
/// Most attributes and namespace declarations of one element.
pub const MAX_ATTRIBUTES: usize = 64;

/// Namespace that the prefix `xmlns` is bound to (Namespaces in XML 1.0, section 3).
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
/// Namespace that the prefix `xml` is bound to.
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Why text is not of the subset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlRefusal {
    /// More than [`MAX_DOCUMENT_LEN`] bytes.
    #[error("is longer than {MAX_DOCUMENT_LEN} bytes")]
    TooLong,
    /// Not UTF-8, or with characters that XML does not allow.
    #[error("is not UTF-8 text of characters that XML allows")]
    Characters,
    /// Not well-formed; where, in bytes.
    #[error("is not well-formed XML: {what}, near byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Offset after the piece that is wrong.
        at: u64,
    },
    /// Well-formed, perhaps, but not of the subset.
    #[error("has {0}, which no reference manifest has")]
    Construct(&'static str),
    /// A prefix without a namespace.
    #[error("uses the prefix {0:?}, which is bound to no namespace")]
    Prefix(String),
    /// A prefix that is bound to another namespace than further out.
    #[error("binds the prefix {0:?} again, to another namespace")]
    Rebound(String),
    /// An attribute that occurs twice in one element.
    #[error("has the attribute {0:?} twice in one element")]
    RepeatedAttribute(String),
    /// Too deep, too many elements or attributes.
    #[error("has more {0} than any reference manifest")]
    TooMany(&'static str),
}

/// An element with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Prefix, empty for none.
    pub prefix: String,
    /// Name without the prefix.
    pub local: String,
    /// Namespace, empty for none.
    pub namespace: String,
    /// Namespaces that are declared here: prefix (empty for the default) and URI.
    pub declarations: Vec<(String, String)>,
    /// Attributes in the order of the document.
    pub attributes: Vec<Attribute>,
    /// What is in it.
    pub children: Vec<Node>,
}

/// An attribute that declares no namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Prefix, empty for none.
    pub prefix: String,
    /// Name without the prefix.
    pub local: String,
    /// Namespace, empty for none: the default namespace is not an attribute's.
    pub namespace: String,
    /// Value after normalisation, references replaced.
    pub value: String,
}

/// A piece of an element's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Another element.
    Element(Element),
    /// Text, references replaced; no two of these are neighbours.
    Text(String),
}

/// Reads a whole document.
///
/// # Errors
/// [`XmlRefusal`] for everything outside of the subset.
pub fn parse(document: &[u8]) -> Result<Element, XmlRefusal> {
    if document.len() > MAX_DOCUMENT_LEN {
        return Err(XmlRefusal::TooLong);
    }
    let text = std::str::from_utf8(document).map_err(|_| XmlRefusal::Characters)?;
    if !text.chars().all(is_char) {
        return Err(XmlRefusal::Characters);
    }
    // Ends of lines are one character before anything else is looked at (XML 1.0, section 2.11).
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut builder = Builder::default();
    let mut reader = Reader::from_str(&text);
    loop {
        let first = reader.buffer_position() == 0;
        let event = reader.read_event();
        let at = reader.buffer_position();
        let malformed = |what| XmlRefusal::Malformed { what, at };
        match event.map_err(|_| malformed("a tag or reference has no end, or is not in its place"))? {
            Event::Eof => return builder.finish(at),
            Event::Start(tag) => builder.open(&tag, at)?,
            Event::Empty(tag) => {
                builder.open(&tag, at)?;
                builder.close(tag.name().0, at)?;
            }
            Event::End(tag) => builder.close(tag.name().0, at)?,
            Event::Text(text) => {
                // XML 1.0, section 2.4.
                if text.contains("]]>") {
                    return Err(malformed("text has ]]>"));
                }
                builder.text(&text, at)?;
            }
            Event::GeneralRef(reference) => {
                let found = resolve(&reference)?;
                builder.text(found.encode_utf8(&mut [0; 4]), at)?;
            }
            Event::Decl(declaration) if first => check_declaration(&declaration)?,
            Event::Decl(_) => return Err(malformed("a declaration is not at the start")),
            Event::DocType(_) => return Err(XmlRefusal::Construct("a document type definition")),
            Event::Comment(_) => return Err(XmlRefusal::Construct("a comment")),
            Event::PI(_) => return Err(XmlRefusal::Construct("a processing instruction")),
            Event::CData(_) => return Err(XmlRefusal::Construct("a CDATA section")),
        }
    }
}

// === impl Element ===

impl Element {
    /// True if it is `local` of `namespace`.
    #[must_use]
    pub fn is(&self, namespace: &str, local: &str) -> bool {
        self.namespace == namespace && self.local == local
    }

    /// Elements that are directly in it.
    pub fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// It and every element in it, those further out first.
    #[must_use]
    pub fn descendants(&self) -> Vec<&Self> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(element) = all.get(next).copied() {
            all.extend(element.elements());
            next = next.saturating_add(1);
        }
        all
    }

    /// Value of an attribute without a namespace.
    #[must_use]
    pub fn attribute(&self, local: &str) -> Option<&str> {
        let found = self.attributes.iter();
        let mut found = found.filter(|a| a.namespace.is_empty() && a.local == local);
        found.next().map(|attribute| attribute.value.as_str())
    }

    /// Its text, if there is no element in it.
    #[must_use]
    pub fn only_text(&self) -> Option<&str> {
        match self.children.as_slice() {
            [] => Some(""),
            [Node::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// True if there is no text in it but white space.
    #[must_use]
    pub fn has_no_text(&self) -> bool {
        self.children.iter().all(|node| match node {
            Node::Element(_) => true,
            Node::Text(text) => text.chars().all(is_space),
        })
    }

    fn name(&self) -> String {
        match self.prefix.as_str() {
            "" => self.local.clone(),
            prefix => format!("{prefix}:{}", self.local),
        }
    }
}

/// Elements that are open, and the one that was closed last of all.
#[derive(Default)]
struct Builder {
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

// === impl Builder ===

impl Builder {
    fn open(&mut self, tag: &BytesStart<'_>, at: u64) -> Result<(), XmlRefusal> {
        if self.root.is_some() {
            return Err(XmlRefusal::Malformed {
                what: "something follows the document's element",
                at,
            });
        }
        self.elements = self.elements.saturating_add(1);
        if self.elements > MAX_ELEMENTS {
            return Err(XmlRefusal::TooMany("elements"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlRefusal::TooMany("levels"));
        }
        let (prefix, local) = split_name(tag.name().0, at)?;
        let mut element = Element {
            prefix,
            local,
            namespace: String::new(),
            declarations: Vec::new(),
            attributes: Vec::new(),
            children: Vec::new(),
        };
        read_attributes(tag.attributes_raw(), &mut element, at)?;
        self.resolve_namespaces(&mut element)?;
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self, name: &str, at: u64) -> Result<(), XmlRefusal> {
        let element = self.open.pop().filter(|element| element.name() == name.trim_end());
        let element = element.ok_or(XmlRefusal::Malformed {
            what: "an end tag has no start tag",
            at,
        })?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str, at: u64) -> Result<(), XmlRefusal> {
        match self.open.last_mut().map(|element| &mut element.children) {
            Some(children) => match children.last_mut() {
                Some(Node::Text(before)) => before.push_str(text),
                _ if text.is_empty() => {}
                _ => children.push(Node::Text(text.to_owned())),
            },
            None if text.chars().all(is_space) => {}
            None => {
                return Err(XmlRefusal::Malformed {
                    what: "text is outside of the document's element",
                    at,
                });
            }
        }
        Ok(())
    }

    fn finish(self, at: u64) -> Result<Element, XmlRefusal> {
        self.root.filter(|_| self.open.is_empty()).ok_or(XmlRefusal::Malformed {
            what: "the document's element is missing or has no end",
            at,
        })
    }

    /// What a prefix is bound to in the elements that are open.
    fn bound(&self, prefix: &str) -> Option<&str> {
        let innermost_first = self.open.iter().rev().flat_map(|element| &element.declarations);
        let mut found = innermost_first.filter(|(declared, _)| declared == prefix);
        found.next().map(|(_, uri)| uri.as_str())
    }

    fn resolve_namespaces(&self, element: &mut Element) -> Result<(), XmlRefusal> {
        for (prefix, uri) in &element.declarations {
            if self.bound(prefix).is_some_and(|outer| outer != uri) {
                return Err(XmlRefusal::Rebound(prefix.clone()));
            }
        }
        let find = |prefix: &str| {
            let here = element.declarations.iter().find(|(declared, _)| declared == prefix);
            let found = here.map(|(_, uri)| uri.as_str()).or_else(|| self.bound(prefix));
            match found {
                Some(uri) => Ok(uri.to_owned()),
                None if prefix.is_empty() => Ok(String::new()),
                None => Err(XmlRefusal::Prefix(prefix.to_owned())),
            }
        };
        let namespace = find(&element.prefix)?;
        let mut attributes = element.attributes.clone();
        for attribute in attributes.iter_mut().filter(|attribute| !attribute.prefix.is_empty()) {
            attribute.namespace = find(&attribute.prefix)?;
        }
        for (index, attribute) in attributes.iter().enumerate() {
            let same = |other: &&Attribute| other.namespace == attribute.namespace && other.local == attribute.local;
            if attributes.iter().skip(index).filter(same).count() != 1 {
                return Err(XmlRefusal::RepeatedAttribute(attribute.local.clone()));
            }
        }
        element.namespace = namespace;
        element.attributes = attributes;
        Ok(())
    }
}

/// Version 1.0, and UTF-8 if an encoding is named.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), XmlRefusal> {
    let version = declaration.version().is_ok_and(|version| version == "1.0");
    let encoding = match declaration.encoding() {
        None => true,
        Some(encoding) => encoding.is_ok_and(|encoding| encoding.eq_ignore_ascii_case("UTF-8")),
    };
    if version && encoding && declaration.standalone().is_none() {
        Ok(())
    } else {
        Err(XmlRefusal::Construct(
            "an XML declaration of another version, encoding or kind",
        ))
    }
}

/// The attributes of a tag, from the end of its name on.
fn read_attributes(raw: &str, element: &mut Element, at: u64) -> Result<(), XmlRefusal> {
    let malformed = |what| XmlRefusal::Malformed { what, at };
    let mut rest = raw;
    while !rest.trim_start_matches(is_space).is_empty() {
        let name_on = rest.trim_start_matches(is_space);
        if name_on.len() == rest.len() {
            return Err(malformed("attributes are not apart"));
        }
        let (name, value_on) = name_on.split_once('=').ok_or(malformed("an attribute has no value"))?;
        let value_on = value_on.trim_start_matches(is_space);
        let quote = value_on.chars().next().filter(|c| matches!(c, '"' | '\''));
        let quote = quote.ok_or(malformed("an attribute's value has no quotes"))?;
        let quoted = value_on.strip_prefix(quote).unwrap_or_default();
        let (value, after) = quoted
            .split_once(quote)
            .ok_or(malformed("an attribute's value has no end"))?;
        add_attribute(
            name.trim_end_matches(is_space),
            &attribute_value(value, at)?,
            element,
            at,
        )?;
        rest = after;
    }
    Ok(())
}

fn add_attribute(name: &str, value: &str, element: &mut Element, at: u64) -> Result<(), XmlRefusal> {
    let total = element.attributes.len().saturating_add(element.declarations.len());
    if total >= MAX_ATTRIBUTES {
        return Err(XmlRefusal::TooMany("attributes"));
    }
    let declared = match split_name(name, at)? {
        (prefix, local) if prefix == "xmlns" => local,
        (prefix, local) if prefix.is_empty() && local == "xmlns" => String::new(),
        (prefix, _) if prefix == "xml" => return Err(XmlRefusal::Construct("an attribute of the prefix xml")),
        (_, local) if local.eq_ignore_ascii_case("id") => {
            return Err(XmlRefusal::Construct("an attribute that could be a signature's target"));
        }
        (prefix, local) => {
            element.attributes.push(Attribute {
                prefix,
                local,
                namespace: String::new(),
                value: value.to_owned(),
            });
            return Ok(());
        }
    };
    if element.declarations.iter().any(|(other, _)| *other == declared) {
        return Err(XmlRefusal::RepeatedAttribute(name.to_owned()));
    }
    let reserved = matches!(declared.as_str(), "xml" | "xmlns") || value == XML || value == XMLNS;
    if reserved || !is_absolute_uri(value) {
        return Err(XmlRefusal::Construct("a namespace that is reserved, empty or relative"));
    }
    element.declarations.push((declared, value.to_owned()));
    Ok(())
}

/// A relative one has no canonical form (Canonical XML 1.1, section 1.3).
fn is_absolute_uri(uri: &str) -> bool {
    let has_scheme = uri.starts_with("http://") || uri.starts_with("https://") || uri.starts_with("urn:");
    has_scheme
        && uri
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '&' | '\''))
}

/// A value with its references replaced and its white space normalised (XML 1.0, section 3.3.3).
fn attribute_value(raw: &str, at: u64) -> Result<String, XmlRefusal> {
    if raw.contains('<') {
        return Err(XmlRefusal::Malformed {
            what: "an attribute's value has <",
            at,
        });
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((text, reference_on)) = rest.split_once('&') {
        value.extend(text.chars().map(as_space));
        let (reference, after) = reference_on.split_once(';').ok_or(XmlRefusal::Malformed {
            what: "a reference has no end",
            at,
        })?;
        value.push(resolve(reference)?);
        rest = after;
    }
    value.extend(rest.chars().map(as_space));
    Ok(value)
}

const fn as_space(c: char) -> char {
    if is_space(c) { ' ' } else { c }
}

/// One of the five references that need no definition, or a character's number.
fn resolve(reference: &str) -> Result<char, XmlRefusal> {
    let number = |digits: &str, radix| {
        let written_out = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| written_out)
            .and_then(char::from_u32)
            .filter(|c| is_char(*c))
            .ok_or(XmlRefusal::Characters)
    };
    match reference {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => match (reference.strip_prefix("#x"), reference.strip_prefix('#')) {
            (Some(digits), _) => number(digits, 16),
            (None, Some(digits)) => number(digits, 10),
            (None, None) => Err(XmlRefusal::Construct("an entity")),
        },
    }
}

/// Prefix and local part of a name of ASCII letters, digits and `_`, `-`, `.`.
fn split_name(name: &str, at: u64) -> Result<(String, String), XmlRefusal> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, local)) if !prefix.is_empty() => (prefix, local),
        Some(_) => {
            return Err(XmlRefusal::Malformed {
                what: "a name begins with :",
                at,
            });
        }
        None => ("", name),
    };
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if is_name(local) && (prefix.is_empty() || is_name(prefix)) {
        Ok((prefix.to_owned(), local.to_owned()))
    } else {
        Err(XmlRefusal::Malformed {
            what: "a name has other characters than letters, digits, _, - and .",
            at,
        })
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// XML 1.0, section 2.2.
const fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}
