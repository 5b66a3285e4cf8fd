//! What globs match, and that the automaton agrees with the crate globset on random globs and paths.

use globset::GlobBuilder;
use proptest::prelude::*;

use super::*;

fn include(glob: &str) -> GlobList {
    GlobList { include: vec![glob.to_owned()], exclude: Vec::new() }
}

fn path_matches(glob: &str, path: &str) -> bool {
    matches(&compile(&include(glob), GlobStyle::Path).unwrap(), path.as_bytes())
}

fn error(glob: &str, style: GlobStyle) -> String {
    compile(&include(glob), style).unwrap_err().to_string()
}

#[test]
fn paths() {
    for (glob, path, expected) in [
        ("/etc/passwd", "/etc/passwd", true),
        ("/etc/passwd", "/etc/passwd2", false),
        ("/etc/*", "/etc/passwd", true),
        ("/etc/*", "/etc/ssl/cert", false),
        ("/etc/**", "/etc/ssl/cert", true),
        ("/etc/**", "/etc", false),
        ("*.log", "/var/log/a.log", true),
        ("*.log", "/a.log", true),
        ("log/*", "/var/log/a", true),
        ("log/*", "/var/catalog/a", false),
        ("/**/x", "/x", true),
        ("/**/x", "/a/b/x", true),
        ("/a/**/b", "/a/b", true),
        ("/a/**/b", "/a/x/y/b", true),
        ("/a/**/b", "/a/xb", false),
        ("/a/**/*.c", "/a/x.c", true),
        ("/a/**/**/b", "/a/b", true),
        ("/data/**.db", "/data/x/y.db", true),
        ("/a?c", "/abc", true),
        ("/a?c", "/a/c", false),
        ("/[a-c]x", "/bx", true),
        ("/[!a-c]x", "/bx", false),
        ("/[!a-c]x", "/dx", true),
        ("/[]-]x", "/-x", true),
        ("/{usr,opt/**}/lib", "/usr/lib", true),
        ("/{usr,opt/**}/lib", "/opt/a/b/lib", true),
        ("/{a{b,c},d}", "/ac", true),
        ("/\\*", "/*", true),
        ("/\\*", "/x", false),
        ("/ü", "/ü", true),
        ("**", "/anything/at/all", true),
        ("/", "/", true),
    ] {
        assert_eq!(path_matches(glob, path), expected, "{glob} on {path}");
    }
}

#[test]
fn refusing_wins_and_nothing_selects_all() {
    let list = GlobList { include: vec!["/a/**".into()], exclude: vec!["*.tmp".into()] };
    let automaton = compile(&list, GlobStyle::Path).unwrap();
    assert!(matches(&automaton, b"/a/x"));
    assert!(!matches(&automaton, b"/a/x.tmp"));
    assert!(!matches(&automaton, b"/b/x"));
    let only_refusing = GlobList { include: Vec::new(), exclude: vec!["*.tmp".into()] };
    let automaton = compile(&only_refusing, GlobStyle::Path).unwrap();
    assert!(matches(&automaton, b"/b/\xff"));
    assert!(!matches(&automaton, b"/b/x.tmp"));
}

#[test]
fn names() {
    for (glob, name, expected) in [
        ("git*", "git-remote", true),
        ("kworker/*", "kworker/0:1", true),
        ("*0:1", "kworker/0:1", true),
        ("git", "git2", false),
        ("{sh,bash}", "bash", true),
    ] {
        let automaton = compile(&include(glob), GlobStyle::Name).unwrap();
        assert_eq!(matches(&automaton, name.as_bytes()), expected, "{glob} on {name}");
    }
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    assert_eq!(
        error("/a[b", GlobStyle::Path),
        "glob `/a[b`, column 3: `[` has no closing `]`; write `\\[` for a plain bracket"
    );
    assert!(error("", GlobStyle::Path).contains("it is empty"));
    assert!(error("/{a,b", GlobStyle::Path).contains("column 2: `{` has no closing `}`"));
    assert!(error("/a}", GlobStyle::Path).contains("column 3: `}` closes nothing"));
    assert!(error("/a\\", GlobStyle::Path).contains("column 3: `\\` is the last"));
    assert!(error("/[z-a]", GlobStyle::Path).contains("column 3: the range"));
    assert!(error("/a/", GlobStyle::Path).contains("column 3: a path never ends"));
    assert!(error("/[a/]", GlobStyle::Path).contains("column 4: `/` cannot"));
    assert!(error(&"{".repeat(100_000), GlobStyle::Path).contains("nested"));
    assert!(error(&"{a,b}".repeat(64), GlobStyle::Path).contains("256 positions"));
    assert!(error(&"a".repeat(256), GlobStyle::Path).contains("256 positions"));
    assert_eq!(
        error("containerd-shim-runc-v2", GlobStyle::Name),
        "glob `containerd-shim-runc-v2`: command names end after 15 bytes in the kernel, so this matches none; \
         write `containerd-shi*`"
    );
}

#[test]
fn the_last_position_is_usable() {
    let glob = format!("/{}", "a".repeat(254));
    assert!(path_matches(&glob, &glob));
}

fn component() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[abc]",
        2 => Just("*".to_owned()),
        2 => Just("?".to_owned()),
        1 => Just("[ab]".to_owned()),
        1 => Just("{a,bc}".to_owned()),
        1 => Just("{*,b}".to_owned()),
    ];
    // Two stars of two pieces would make a `**` that is no component, which globset reads as `*`.
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat().replace("**", "*"))
}

fn glob() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => component(), 2 => Just("**".to_owned())];
    (any::<bool>(), prop::collection::vec(part, 1..5)).prop_map(|(rooted, parts)| {
        let joined = parts.join("/");
        if rooted { format!("/{joined}") } else { joined }
    })
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]{1,3}", 1..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn agrees_with_globset(glob in glob(), paths in prop::collection::vec(path(), 1..8)) {
        let compiled = compile(&include(&glob), GlobStyle::Path);
        prop_assume!(!matches!(compiled, Err(GlobError::TooBig { .. })));
        let automaton = compiled.unwrap();
        let anchored = if glob.starts_with('/') { glob.clone() } else { format!("**/{glob}") };
        let reference = GlobBuilder::new(&anchored).literal_separator(true).build().unwrap().compile_matcher();
        for path in paths {
            prop_assert_eq!(matches(&automaton, path.as_bytes()), reference.is_match(&path), "{} on {}", glob, path);
        }
    }

    #[test]
    fn any_text_compiles_or_says_why(glob in ".{0,40}", name in any::<bool>()) {
        let style = if name { GlobStyle::Name } else { GlobStyle::Path };
        if let Err(error) = compile(&include(&glob), style) {
            prop_assert!(error.to_string().starts_with("glob `"));
        }
    }
}
