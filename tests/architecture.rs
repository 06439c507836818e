//! The sources against the architecture: imports only go down the list of rooms, the host's adapters do not call each other,
//! no file imports in a circle, and the pure rooms touch neither clock, socket, file, runtime nor logger.

#![allow(clippy::unwrap_used, reason = "a source that cannot be read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A room may import from those below it.
const ROOMS: [&str; 11] =
    ["bin", "cli", "daemon", "run", "host", "config", "report", "proof", "announcement", "path", "guest"];
/// Rooms that take facts and `now`, and return actions.
const PURE: [&str; 5] = ["report", "proof", "announcement", "path", "guest"];
/// What a pure room does not name.
const IMPURE: [&str; 19] = [
    "tokio::",
    "nix::",
    "libc::",
    "tracing::",
    "virt::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::io",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "Instant",
    "SystemTime",
];
/// Within `host`, the adapters that only speak a protocol: the others may use them.
const PROTOCOLS: [&str; 2] = ["netlink", "openvswitch"];

/// One import of a file.
struct Import {
    line: usize,
    /// Segments below `crate`.
    path: Vec<String>,
}

struct Source {
    file: PathBuf,
    /// Segments below `crate`.
    module: Vec<String>,
    /// The text before the unit tests, by line, without comments.
    lines: Vec<String>,
    imports: Vec<Import>,
}

impl Source {
    fn room(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    fn read(root: &Path, file: PathBuf) -> Source {
        let below = file.strip_prefix(root).unwrap().with_extension("");
        let mut module: Vec<String> =
            below.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines: Vec<String> =
            code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect();
        let imports = imports(&lines, &module);
        Source { file, module, lines, imports }
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.file.display())
    }
}

/// Every path that begins with `crate::`, `super::` or `announced::`, with braces spelled out.
fn imports(lines: &[String], module: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines) {
        for (start, words) in
            ["crate::", "super::", "announced::"].iter().flat_map(|word| line.match_indices(word))
        {
            let before = line[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = std::iter::once(&line[start..]).chain(lines[number..].iter().map(String::as_str));
            let tree: String = rest.collect::<Vec<_>>().join("\n");
            let base = match words {
                "super::" => module[..module.len().saturating_sub(1)].to_vec(),
                _ => Vec::new(),
            };
            let paths = spell_out(&tree[words.len()..]);
            found.extend(
                paths.into_iter().map(|path| Import { line: number, path: [base.clone(), path].concat() }),
            );
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`; what follows the path is left out.
fn spell_out(text: &str) -> Vec<Vec<String>> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let head: Vec<String> =
        text[..end].split("::").filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if !(text[..end].ends_with("::") && text[end..].starts_with('{')) {
        return vec![head];
    }
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in text[end..].chars() {
        match c {
            '{' if depth == 0 => depth = 1,
            '}' if depth == 1 => break,
            ',' if depth == 1 => items.push(std::mem::take(&mut item)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    let below = items.flat_map(|item| if item == "self" { vec![Vec::new()] } else { spell_out(item) });
    below.map(|path| [head.clone(), path].concat()).collect()
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, directory: &Path, to: &mut Vec<Source>) {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(root, &path, to);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                to.push(Source::read(root, path));
            }
        }
    }
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut sources = Vec::new();
    walk(root, root, &mut sources);
    assert!(sources.len() > 40, "{}", sources.len());
    sources
}

fn none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_file_list_is_the_architecture() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let names = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let expected = ROOMS.iter().chain(&["lib.rs", "log.rs"]).map(|name| name.to_string());
    assert_eq!(names.collect::<BTreeSet<_>>(), expected.collect());
}

#[test]
fn imports_only_go_down_the_rooms() {
    let floor = |room: &str| ROOMS.iter().position(|name| *name == room);
    let mut broken = Vec::new();
    for source in sources() {
        let Some(own) = floor(source.room()) else { continue };
        for import in &source.imports {
            let Some(other) = import.path.first().and_then(|room| floor(room)) else { continue };
            if other < own {
                let (room, path) = (source.room(), import.path.join("::"));
                broken.push(format!("{}: {room} imports {path} from above", source.at(import.line)));
            }
        }
    }
    none(broken);
}

#[test]
fn the_hosts_adapters_do_not_call_each_other() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host");
    // The system calls are below all of them; a plain file speaks no protocol.
    let is_adapter = |name: &str| name != "sys" && host.join(name).is_dir();
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.room() == "host" && source.module.len() > 1) {
        let own = source.module[1].as_str();
        for import in &source.imports {
            let [room, other, ..] = &import.path[..] else { continue };
            let is_below = PROTOCOLS.contains(&other.as_str()) && !PROTOCOLS.contains(&own);
            if room == "host" && other != own && is_adapter(other) && !is_below {
                broken.push(format!("{}: host/{own} calls host/{other}", source.at(import.line)));
            }
        }
    }
    none(broken);
}

#[test]
fn pure_rooms_touch_nothing() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.room())) {
        for (number, line) in (1..).zip(&source.lines) {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}: a pure room names {word}", source.at(number)));
            }
        }
    }
    none(broken);
}

/// Below the programs, an error is a type of its own.
#[test]
fn no_text_is_an_error_below_the_programs() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !["", "bin", "cli", "daemon"].contains(&source.room())) {
        for (number, line) in (1..).zip(&source.lines) {
            let is_text = |rest: &str| rest.trim_start().starts_with("String>");
            if line.contains("Result<") && line.split(',').skip(1).any(is_text) {
                broken.push(format!("{}: an error that is a text", source.at(number)));
            }
        }
    }
    none(broken);
}

#[test]
fn no_file_imports_in_a_circle() {
    let sources = sources();
    let files: BTreeMap<&[String], usize> =
        sources.iter().enumerate().map(|(number, source)| (source.module.as_slice(), number)).collect();
    let file_of = |path: &[String]| (1..=path.len()).rev().find_map(|n| files.get(&path[..n]).copied());
    let mut edges: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); sources.len()];
    for (number, source) in sources.iter().enumerate() {
        for import in &source.imports {
            if let Some(other) = file_of(&import.path).filter(|other| *other != number) {
                edges[number].entry(other).or_insert(import.line);
            }
        }
    }
    let reaches = |from: usize, to: usize| {
        let (mut open, mut seen) = (vec![from], BTreeSet::new());
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(edges[next].keys());
            }
        }
        seen.contains(&to)
    };
    let mut broken = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for (other, line) in &edges[number] {
            if reaches(*other, number) {
                broken.push(format!(
                    "{}: in a circle with {}",
                    source.at(*line),
                    sources[*other].file.display()
                ));
            }
        }
    }
    none(broken);
}

#[test]
fn an_import_is_spelled_out() {
    let lines: Vec<String> = "use crate::a::{self, b::{C, D},\n  e};\nlet x = crate::f::g(super::h::I);"
        .lines()
        .map(str::to_owned)
        .collect();
    let module = ["m", "n"].map(str::to_owned);
    let paths: Vec<String> = imports(&lines, &module).iter().map(|import| import.path.join("::")).collect();
    assert_eq!(paths, ["a", "a::b::C", "a::b::D", "a::e", "f::g", "m::h::I"]);
}
