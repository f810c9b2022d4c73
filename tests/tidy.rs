//! The rules of the house that the compiler does not know.
//!
//! Layers import downwards only, and some crates have one home; every source file begins with its
//! story and has not outgrown its purpose; nothing committed depends on one machine's folders.
//! Each rule is a function from names and texts to complaints, so the tests at the end show on
//! small bad examples that it can fail.

use std::{
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
};

/// The layers, from the ground up; those of one row do not know each other.
const LAYERS: [&[&str]; 10] = [
    &["model"],
    &["protocol"],
    &["store"],
    &["node"],
    &["wire"],
    &["listen", "delta_file"],
    &["api", "replication", "mirror", "status", "client", "telemetry"],
    &["config"],
    &["cli"],
    &["main"],
];

/// Layers that not everything above them may import.
const IMPORTED_ONLY_BY: [(&str, &[&str]); 4] = [
    ("wire", &["delta_file", "api", "replication", "client", "cli"]),
    ("listen", &["api", "status"]),
    ("config", &["cli"]),
    ("delta_file", &["cli"]),
];

/// What only these files, or the files of these folders, may name.
const NAMED_ONLY_IN: [(&str, &[&str]); 3] = [
    ("mysql_async", &["mirror/mysql.rs"]),
    ("redb", &["store/", "store.rs"]),
    ("include_proto", &["wire/", "wire.rs"]),
];

/// Names that say nothing of what a module is for.
const EMPTY_NAMES: [&str; 5] = ["core", "util", "utils", "common", "helpers"];

/// A file of more lines has more than one purpose.
const FILE_LINES_MAX: usize = 600;

#[test]
fn layers_import_downwards() {
    check_sources(complain_of_imports);
}

#[test]
fn some_names_have_one_home() {
    check_sources(complain_of_names);
}

#[test]
fn source_files_tell_their_story_and_stay_small() {
    check_sources(complain_of_shape);
}

#[test]
fn modules_are_named_for_what_they_do() {
    check_sources(complain_of_module_names);
}

#[test]
fn nothing_committed_names_a_folder_of_one_machine() {
    let complaints: Vec<_> = committed_texts()
        .iter()
        .flat_map(|(name, text)| complain_of_machine_paths(name, text))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

// ---- the rules --------------------------------------------------------------------------------

#[test]
fn each_mutants_edit_fits_the_source() {
    let text = fs::read_to_string(root().join("tests/mutants.toml")).unwrap();
    let source = |file: &str| fs::read_to_string(root().join(file)).ok();
    let complaints = complain_of_mutants(&text, source);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Imports of other layers that point up or sideways, or go past a restriction.
fn complain_of_imports(file: &str, text: &str) -> Vec<String> {
    let layer = layer_of(file);
    let Some(from) = layer else { return Vec::new() };
    imports(file, text)
        .into_iter()
        .filter_map(|to| {
            let reason = refusal(from, &to)?;
            Some(format!("src/{file}: {from} imports {to}: {reason}"))
        })
        .collect()
}

/// Why layer `from` may not import layer `to`; `None` where it may.
fn refusal(from: &str, to: &str) -> Option<String> {
    let height = |name: &str| LAYERS.iter().position(|row| row.contains(&name));
    let unknown = |name: &str| format!("{name} is no layer; give it one in tests/tidy.rs");
    let Some(from_height) = height(from) else { return Some(unknown(from)) };
    let Some(to_height) = height(to) else { return Some(unknown(to)) };
    if from == to {
        return None;
    }
    let importers = IMPORTED_ONLY_BY.iter().find(|(layer, _)| *layer == to);
    if let Some((_, importers)) = importers
        && !importers.contains(&from)
    {
        return Some(format!("only {} may", importers.join(", ")));
    }
    match from_height.cmp(&to_height) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some("edges do not know each other".to_owned()),
        std::cmp::Ordering::Less => Some("imports point down only".to_owned()),
    }
}

/// Names that have a home elsewhere.
fn complain_of_names(file: &str, text: &str) -> Vec<String> {
    let is_in = |home: &&str| match home.strip_suffix('/') {
        Some(_) => file.starts_with(*home),
        None => file == *home,
    };
    let words = tokens(text);
    NAMED_ONLY_IN
        .iter()
        .filter(|(name, homes)| words.iter().any(|word| word == name) && !homes.iter().any(is_in))
        .map(|(name, homes)| {
            format!("src/{file} names {name}; only src/{} does", homes.join(", src/"))
        })
        .collect()
}

/// A file without a header, or one that is too long.
fn complain_of_shape(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("src/{file} does not begin with a //! header"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("src/{file} has {lines} lines; split it at {FILE_LINES_MAX}"));
    }
    complaints
}

/// Modules whose name says nothing, as files, folders or inside a file.
fn complain_of_module_names(file: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let inline = tokens.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].as_str());
    let stems = file.trim_end_matches(".rs").split('/');
    stems
        .chain(inline)
        .filter(|name| EMPTY_NAMES.contains(name))
        .map(|name| format!("src/{file}: a module called {name} says nothing of its purpose"))
        .collect()
}

/// Lines that name a folder which only the machine has on which they were written.
fn complain_of_machine_paths(name: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not name them.
    let folders = [["/", "work", "/"].concat(), ["/", "tmp", "/wt"].concat()];
    text.lines()
        .enumerate()
        .filter(|(_, line)| folders.iter().any(|folder| line.contains(folder)))
        .map(|(index, line)| format!("{name}:{}: {}", index + 1, line.trim()))
        .collect()
}

// ---- reading Rust, as far as the rules need it ------------------------------------------------

/// An edit whose old text is not there once makes no mutant, and `make mutants` would be long in saying so.
fn complain_of_mutants(list: &str, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let list: toml::Table = list.parse().expect("a list in TOML");
    let mutants = list["mutant"].as_array().expect("mutants").iter();
    let edits = mutants.flat_map(|mutant| {
        let edits = mutant["edit"].as_array().expect("edits").iter();
        edits.map(move |edit| (&mutant["name"], &edit["file"], &edit["old"]))
    });
    let complaint = |(name, file, old): (&toml::Value, &toml::Value, &toml::Value)| {
        let [file, old] = [file, old].map(|text| text.as_str().expect("a text"));
        let count = source(file).map_or(0, |source| source.matches(old).count());
        (count != 1).then(|| format!("{name:?}: occurs {count} times in {file}: {old}"))
    };
    edits.filter_map(complaint).collect()
}

/// The layer of a file under src; `None` for the crate root, which names them all.
fn layer_of(file: &str) -> Option<&str> {
    match file.split('/').next().unwrap_or(file).trim_end_matches(".rs") {
        "lib" => None,
        // Programs stand on the library.
        "bin" => Some("main"),
        layer => Some(layer),
    }
}

/// The top-level modules of this crate that a file names: by `crate::`, by as many `super::` as
/// lead there, or, in a program, by the crate's name.
fn imports(file: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // The braces that are open, and whether each is that of an inline module.
    let mut open: Vec<bool> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let path = &tokens[at..];
        let depth = module_depth(file) + open.iter().filter(|is_module| **is_module).count();
        match token.as_str() {
            "{" => open.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => {
                open.pop();
            }
            "crate" | "lastword" => found.extend(first_names(&path[1..])),
            "super" => {
                let steps = path.chunks(2).take_while(|step| is_step(step, "super")).count();
                if steps > 0 && steps == depth {
                    found.extend(first_names(&path[2 * steps - 1..]));
                }
                // The rest of the chain is not another one.
                at += 2 * steps.max(1) - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.sort();
    found.dedup();
    found
}

/// How many modules deep the code of a file stands: 0 in the crate root.
fn module_depth(file: &str) -> usize {
    let names = file.trim_end_matches(".rs").split('/');
    names.filter(|name| !["lib", "main", "mod"].contains(name)).count()
}

/// Whether these two tokens are `name` and `::`.
fn is_step(tokens: &[String], name: &str) -> bool {
    matches!(tokens, [word, colons] if word == name && colons == "::")
}

/// The names right behind a `::`: one, or those at the top of a group in braces.
fn first_names(tokens: &[String]) -> Vec<String> {
    match tokens {
        [colons, brace, group @ ..] if colons == "::" && brace == "{" => {
            let mut names = Vec::new();
            let mut depth = 1;
            let mut is_first = true;
            for token in group {
                match token.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    "," if depth == 1 => is_first = true,
                    name if is_first => {
                        names.push(name.to_owned());
                        is_first = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            names
        }
        [colons, name, ..] if colons == "::" => vec![name.clone()],
        _ => Vec::new(),
    }
}

/// The words and signs of a Rust text, `::` as one; without comments and the insides of strings.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens: Vec<String> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => until_end(rest, |tail| tail[0] == '\n'),
            ['/', '*', ..] => until_end(&rest[2..], |tail| tail.starts_with(&['*', '/'])) + 4,
            ['"', ..] => string_length(rest),
            ['r', hashes @ ..] | ['b', 'r', hashes @ ..] if raw_hashes(hashes).is_some() => {
                let count = raw_hashes(hashes).unwrap_or(0);
                let end: Vec<char> = iter::once('"').chain(iter::repeat_n('#', count)).collect();
                let body = rest.len() - hashes.len() + count + 1;
                body + until_end(&rest[body..], |tail| tail.starts_with(&end)) + end.len()
            }
            ['\'', '\\', escaped @ ..] => 3 + until_end(&escaped[1..], |tail| tail[0] == '\'') + 1,
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                tokens.push("::".to_owned());
                2
            }
            [first, ..] if is_of_word(first) => {
                let word: String = rest.iter().copied().take_while(is_of_word).collect();
                let length = word.chars().count();
                tokens.push(word);
                length
            }
            [space, ..] if space.is_whitespace() => 1,
            [sign, ..] => {
                tokens.push(sign.to_string());
                1
            }
            [] => 1,
        };
    }
    tokens
}

fn is_of_word(char: &char) -> bool {
    char.is_alphanumeric() || *char == '_'
}

/// How many characters stand before the first tail of which `is_end` holds.
fn until_end(chars: &[char], is_end: impl Fn(&[char]) -> bool) -> usize {
    (0..chars.len()).find(|&at| is_end(&chars[at..])).unwrap_or(chars.len())
}

/// The length of a string literal, both quotes included.
fn string_length(chars: &[char]) -> usize {
    let mut at = 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The number of `#` before the quote of a raw string; `None` where it is none.
fn raw_hashes(chars: &[char]) -> Option<usize> {
    let count = chars.iter().take_while(|char| **char == '#').count();
    (chars.get(count) == Some(&'"')).then_some(count)
}

// ---- what is checked --------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Applies a rule to every source file: its name, from src on, and its text.
fn check_sources(rule: fn(&str, &str) -> Vec<String>) {
    let src = root().join("src");
    let mut files = Vec::new();
    find_rust_files(&src, &mut files);
    assert!(files.len() > 1, "no sources found in {}", src.display());
    let mut complaints = Vec::new();
    for path in files {
        let file = path.strip_prefix(&src).expect("found there").to_str().expect("UTF-8 names");
        complaints.extend(rule(file, &fs::read_to_string(&path).expect("a readable file")));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn find_rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            find_rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// Name and text of every file that git knows of, other than binary ones.
fn committed_texts() -> Vec<(String, String)> {
    let output = Command::new("git")
        // The checkout may belong to another user, as in a container.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("UTF-8 names");
    let texts: Vec<_> = names
        .split_terminator('\0')
        // A file may be deleted and git not know yet; what is not UTF-8 is no text.
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect();
    assert!(texts.iter().any(|(name, _)| name == "Cargo.toml"), "git knows of no Cargo.toml");
    texts
}

// ---- the rules can fail -----------------------------------------------------------------------

fn refused(file: &str, text: &str) -> bool {
    !complain_of_imports(file, text).is_empty()
}

#[test]
fn an_import_that_points_up_is_seen() {
    assert!(refused("model/row.rs", "use crate::store::Snapshot;"));
    assert!(refused("store/mod.rs", "use crate::{\n    model::Key,\n    node::{Node, error},\n};"));
    assert!(refused("node/mod.rs", "fn f() -> crate::wire::proto::Row { todo!() }"));
    assert!(refused("store/apply.rs", "mod tests { use crate::node::Node; }"));
    assert!(!refused("store/mod.rs", "use crate::{model::{Key, node}, protocol::Clock};"));
    assert!(!refused("cli/serve.rs", "use crate::{api, config, mirror, node, telemetry, wire};"));
    assert!(!refused("lib.rs", "pub mod cli; pub use crate::client::Client;"));
}

#[test]
fn an_import_by_super_is_seen() {
    assert!(refused("store/apply.rs", "use super::super::node::Node;"));
    assert!(refused("wire.rs", "use super::api;"));
    assert!(refused("store/mod.rs", "mod tests { use super::super::{model, cli::run}; }"));
    assert!(refused("store/mod.rs", "impl A { fn f() { super::node::f() } }"));
    assert!(!refused("store/apply.rs", "use super::node;"), "a module of the store's own");
    assert!(!refused("store/mod.rs", "mod tests { use super::node; }"), "here, too");
    assert!(!refused("store/mod.rs", "mod a { } use super::model;"));
}

#[test]
fn an_import_across_edges_is_seen() {
    assert!(refused("api/mod.rs", "use crate::replication::Links;"));
    assert!(refused("status/mod.rs", "use crate::{node, mirror};"));
    assert!(!refused("api/mod.rs", "use crate::api::limits;"));
}

#[test]
fn an_import_past_a_restriction_is_seen() {
    assert!(refused("mirror/mod.rs", "use crate::wire::proto;"));
    assert!(refused("config.rs", "use crate::wire::proto;"));
    assert!(!refused("client/mod.rs", "use crate::wire::proto;"));
    assert!(refused("replication/mod.rs", "use crate::config::Config;"));
    assert!(!refused("cli/serve.rs", "use crate::config::Config;"));
    assert!(!refused("config/mod.rs", "use crate::{api::Limits, telemetry};"));
}

#[test]
fn a_module_without_a_layer_is_seen() {
    assert!(refused("model/key.rs", "use crate::helpful::f;"));
    assert!(refused("helpful.rs", "use crate::model::Key;"));
    assert!(refused("node/mod.rs", "use crate::*;"));
    assert!(refused("main.rs", "use lastword::helpful;"));
    assert!(!refused("main.rs", "fn main() { lastword::cli::run() }"));
}

#[test]
fn comments_and_strings_import_nothing() {
    assert!(!refused("model/key.rs", "/// See [`crate::cli::run`].\n//! and crate::api::x"));
    assert!(!refused(
        "model/key.rs",
        "/* crate::cli */ const A: &str = \"crate::cli \\\" crate::api\";"
    ));
    assert!(!refused("model/key.rs", "const A: &str = r#\"crate::cli \" crate::api\"#;"));
    assert!(!refused("model/key.rs", "const A: &[u8] = br\"crate::cli\"; pub(crate) fn f() {}"));
    let after = |literal: &str| format!("const A: X = {literal}; use crate::cli;");
    for literal in
        ["'\"'", "'\\''", "'\\\\'", "'\\u{22}'", "b'\"'", "\"\\\\\"", "&'a str", "r\"\\\""]
    {
        assert!(refused("model/key.rs", &after(literal)), "{literal}");
    }
}

#[test]
fn a_name_away_from_home_is_seen() {
    let sees = |file, text| !complain_of_names(file, text).is_empty();
    assert!(sees("mirror/mod.rs", "use mysql_async::Conn;"));
    assert!(!sees("mirror/mysql.rs", "use mysql_async::Conn;"));
    assert!(sees("node/error.rs", "Redb(redb::Error)"));
    assert!(!sees("store/error.rs", "Redb(redb::Error)"));
    assert!(!sees("node/error.rs", "// no redb here\nconst A: &str = \"redb\";"));
    assert!(sees("api/mod.rs", "tonic::include_proto!(\"x\");"));
    assert!(!sees("wire/proto.rs", "tonic::include_proto!(\"x\");"));
    assert!(!sees("wire.rs", "tonic::include_proto!(\"x\");"));
}

#[test]
fn a_file_out_of_shape_is_seen() {
    assert_eq!(complain_of_shape("a.rs", "use b;\n").len(), 1);
    assert_eq!(complain_of_shape("a.rs", "// A remark.\n").len(), 1);
    let lines = |count| format!("//! A story.\n{}", "\n".repeat(count - 1));
    assert_eq!(complain_of_shape("a.rs", &lines(FILE_LINES_MAX)).len(), 0);
    assert_eq!(complain_of_shape("a.rs", &lines(FILE_LINES_MAX + 1)).len(), 1);
}

#[test]
fn a_module_with_an_empty_name_is_seen() {
    for file in ["util.rs", "node/helpers.rs", "common/mod.rs", "store/core/apply.rs"] {
        assert_eq!(complain_of_module_names(file, "").len(), 1, "{file}");
    }
    assert_eq!(complain_of_module_names("node/mod.rs", "mod utils { }").len(), 1);
    assert_eq!(
        complain_of_module_names("node/mod.rs", "mod tests { use super::core_of; }").len(),
        0
    );
}

#[test]
fn a_machine_path_is_seen() {
    let text =
        format!("fine\ncd {}\nls {}\n", ["/", "work/main"].concat(), ["/tmp", "/wt/a"].concat());
    let complaints = complain_of_machine_paths("a.md", &text);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].starts_with("a.md:2: cd "), "{complaints:?}");
    assert!(complain_of_machine_paths("a.md", "the network, a framework, /tmp/other").is_empty());
}

#[test]
fn a_mutants_edit_that_does_not_fit_is_seen() {
    let list = |old: &str| {
        format!(
            "[[mutant]]\nname = \"m\"\n[[mutant.edit]]\nfile = \"f\"\nold = \"{old}\"\nnew = \"x\"\n"
        )
    };
    let source = |file: &str| (file == "f").then(|| "a b b".to_owned());
    assert!(complain_of_mutants(&list("a"), source).is_empty());
    for wrong in ["b", "c"] {
        assert_eq!(complain_of_mutants(&list(wrong), source).len(), 1, "{wrong}");
    }
    assert_eq!(complain_of_mutants(&list("a"), |_| None).len(), 1);
}
