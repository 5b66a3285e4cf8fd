//! A value that should not stand in a file that many can read: written out, or where it is to be had.

use std::path::PathBuf;
use std::{env, fmt, fs, io};

use thiserror::Error;

use crate::yaml::{Fields, Node, Reader, Value};

const KEYS: &[&str] = &["env", "file"];

/// Text, or where to get it at the start.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Text(String),
    /// A variable of the environment.
    Env(String),
    /// The content of a file, without the end of the last line.
    File(PathBuf),
}

/// Why there is no value.
#[derive(Debug, Error)]
pub enum SecretError {
    #[error("the variable `{0}` is not set, or no text")]
    Env(String),
    #[error("read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl Secret {
    /// The value, as it is now.
    ///
    /// # Errors
    /// The variable or the file is not there, or no text.
    pub fn get(&self) -> Result<String, SecretError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Env(name) => env::var(name).map_err(|_missing_or_no_text| SecretError::Env(name.clone())),
            Self::File(path) => {
                let text = fs::read_to_string(path);
                let text = text.map_err(|source| SecretError::File { path: path.clone(), source })?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }

    pub(super) fn read(reader: &mut Reader, node: &Node, what: &str) -> Option<Self> {
        if let Value::Scalar(text) = &node.value {
            return Some(Self::Text(text.clone()));
        }
        let right = "write the text, `{ env: NAME }` or `{ file: PATH }`";
        if !matches!(node.value, Value::Map(_)) {
            reader.wrong(node.at, format!("{what} is {}; {right}", node.value.kind()));
            return None;
        }
        let fields = Fields::of(reader, node, what, KEYS)?;
        match (fields.get("env"), fields.get("file")) {
            (Some(node), None) => reader.text(node, "env", "the name of a variable").map(|name| Self::Env(name.into())),
            (None, Some(node)) => reader.text(node, "file", "a path").map(|path| Self::File(path.into())),
            (None, None) if KEYS.iter().any(|key| fields.is_misspelt(key)) => None,
            (Some(_), Some(_)) | (None, None) => {
                reader.wrong(node.at, format!("{what} takes exactly one of `env` and `file`; {right}"));
                None
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
