//! One call as strace prints it, taken apart: name, arguments, result.
//!
//! Nothing is decoded: an argument keeps its quotes, its braces and the `<...>` that says what a descriptor is.

/// A call. Borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: Vec<&'a str>,
    pub(super) result: Outcome<'a>,
}

/// What stands behind `=`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// The number, and what a returned descriptor is.
    Value(i64, &'a str),
    /// The name of the errno, ERESTARTSYS and its kin included.
    Failed(&'a str),
    /// The process ended inside the call.
    Cut,
}

/// Takes a line apart; nothing if it is no call.
pub(super) fn parse(line: &str) -> Option<Call<'_>> {
    let open = line.find('(')?;
    let name = &line[..open];
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (arguments, end) = arguments(line, open + 1)?;
    let result = line[end..].trim_start().strip_prefix('=')?.trim();
    Some(Call { name, arguments, result: outcome(result)? })
}

/// The arguments, and where the text goes on behind the closing parenthesis.
fn arguments(line: &str, from: usize) -> Option<(Vec<&str>, usize)> {
    let bytes = line.as_bytes();
    let mut arguments = Vec::new();
    let (mut begin, mut at, mut depth) = (from, from, 0_u32);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = after_string(bytes, at)?,
            b'<' if names_a_descriptor(line, begin, at) => at = after_annotation(bytes, at)?,
            b'/' if bytes[at..].starts_with(b"/*") => at += line[at..].find("*/")? + 2,
            b'(' | b'[' | b'{' => (depth, at) = (depth + 1, at + 1),
            b')' if depth == 0 => {
                let last = line[begin..at].trim();
                if !(arguments.is_empty() && last.is_empty()) {
                    arguments.push(last);
                }
                return Some((arguments, at + 1));
            }
            b')' | b']' | b'}' => (depth, at) = (depth.checked_sub(1)?, at + 1),
            b',' if depth == 0 => {
                arguments.push(line[begin..at].trim());
                at += 1;
                begin = at;
            }
            _ => at += 1,
        }
    }
    None
}

/// Behind a string whose opening quote stands at `at`.
fn after_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `3<` and `AT_FDCWD<`, but not `21<<MAP_HUGE_SHIFT`.
fn names_a_descriptor(line: &str, begin: usize, at: usize) -> bool {
    let before = &line[begin..at];
    let follows = before.ends_with("AT_FDCWD") || before.ends_with(|last: char| last.is_ascii_digit());
    follows && !line[at..].starts_with("<<")
}

/// Behind what stands in `<...>`. In a path strace escapes both brackets; `<char 1:3>` may stand behind the path, and sockets
/// show `a->b`.
fn after_annotation(bytes: &[u8], at: usize) -> Option<usize> {
    let is_path = bytes.get(at + 1) == Some(&b'/');
    let (mut at, mut depth) = (at, 0_u32);
    loop {
        match bytes.get(at)? {
            b'"' if !is_path => {
                at = after_string(bytes, at)?;
                continue;
            }
            b'<' => depth += 1,
            b'>' if !is_path && bytes[at - 1] == b'-' => {}
            b'>' => {
                depth -= 1;
                if depth == 0 {
                    // An unlinked file: </a>(deleted).
                    let deleted = b"(deleted)";
                    return Some(if bytes[at + 1..].starts_with(deleted) { at + 1 + deleted.len() } else { at + 1 });
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn outcome(text: &str) -> Option<Outcome<'_>> {
    if let Some(rest) = text.strip_prefix('?') {
        let name = rest.split_whitespace().next();
        return Some(name.map_or(Outcome::Cut, Outcome::Failed));
    }
    let digits = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let value = match number.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?.cast_signed(),
        None => number.parse().ok()?,
    };
    match rest.split_whitespace().next() {
        Some(name) if value == -1 && name.starts_with('E') => Some(Outcome::Failed(name)),
        _ => Some(Outcome::Value(value, rest.trim_start())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> (Vec<&str>, Outcome<'_>) {
        let call = parse(line).expect("a call");
        (call.arguments, call.result)
    }

    #[test]
    fn strings_hide_what_they_hold() {
        let (arguments, result) = parts(r#"write(1</tmp/a>, "a\") = 5, <x", 11) = 11"#);
        assert_eq!(arguments, ["1</tmp/a>", r#""a\") = 5, <x""#, "11"]);
        assert_eq!(result, Outcome::Value(11, ""));
    }

    #[test]
    fn descriptors_keep_what_they_are() {
        let (arguments, result) = parts("openat(AT_FDCWD</t/ a,b)>, \"c\", O_RDONLY) = 3</t/c = 4)>");
        assert_eq!(arguments[0], "AT_FDCWD</t/ a,b)>");
        assert_eq!(result, Outcome::Value(3, "</t/c = 4)>"));
        assert_eq!(parts("fstat(0</dev/null<char 1:3>>, 0x7ffe) = 0").0[0], "0</dev/null<char 1:3>>");
        assert_eq!(parts("close(3<TCP:[1.2.3.4:5->6.7.8.9:10]>) = 0").0, ["3<TCP:[1.2.3.4:5->6.7.8.9:10]>"]);
        assert_eq!(parts("close(3</a>(deleted)) = 0").0, ["3</a>(deleted)"]);
        assert_eq!(parts("mmap(NULL, 2, PROT_READ, MAP_HUGETLB|21<<MAP_HUGE_SHIFT, -1, 0) = 0x7f00").0.len(), 6);
    }

    #[test]
    fn structures_are_one_argument() {
        let (arguments, _) = parts("readv(3</a>, [{iov_base=\"x,\", iov_len=1}, {iov_base=\"\", iov_len=2}], 2) = 1");
        assert_eq!(arguments.len(), 3);
        assert_eq!(parts("getdents64(3</a>, 0x55 /* 12 entries, (all) */, 32768) = 384").0.len(), 3);
        assert_eq!(parts("getpid()  = 7").0, Vec::<&str>::new());
    }

    #[test]
    fn results_are_numbers_errnos_or_nothing() {
        assert_eq!(parts("access(\"/x\", R_OK) = -1 ENOENT (No such file or directory)").1, Outcome::Failed("ENOENT"));
        let restarted = "flock(3</a>, LOCK_EX) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)";
        assert_eq!(parts(restarted).1, Outcome::Failed("ERESTARTSYS"));
        assert_eq!(parts("exit_group(0)     = ?").1, Outcome::Cut);
        assert_eq!(parts("mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</a>, 0) = 0x7f10").1, Outcome::Value(0x7f10, ""));
        assert_eq!(parts("statx(3</a>, \"\", AT_EMPTY_PATH, 0, {...}) = 0").1, Outcome::Value(0, ""));
    }
}
