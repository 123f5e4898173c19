//! Bytes in hexadecimal: paths that are not text, in documents and in the journal.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Returns the bytes in hexadecimal, two lower-case digits each.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the bytes that hexadecimal digits of either case stand for. None for any other text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from((digit(high)? << 4) | digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Returns a path's bytes in hexadecimal if the path is no text.
pub fn path_hex(path: &Path) -> Option<String> {
    path.to_str()
        .is_none()
        .then(|| encode(path.as_os_str().as_bytes()))
}

/// Paths in JSON: text, or an object with the bytes in hexadecimal.
pub mod path_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        Plain(String),
        Bytes { hex: String },
    }

    /// Writes a path.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Text::Plain(text.to_owned()),
            None => Text::Bytes {
                hex: crate::text::hex::encode(path.as_os_str().as_bytes()),
            },
        }
        .serialize(serializer)
    }

    /// Reads a path.
    ///
    /// # Errors
    /// Those of the deserializer, and digits that are not hexadecimal.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Text::deserialize(deserializer)? {
            Text::Plain(text) => PathBuf::from(text),
            Text::Bytes { hex } => {
                let bytes = crate::text::hex::decode(&hex)
                    .ok_or_else(|| serde::de::Error::custom("not hexadecimal"))?;
                PathBuf::from(OsString::from_vec(bytes))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_their_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
        assert_eq!(decode("fF"), Some(vec![255]));
        for bad in ["f", "0g", "é", "+1", " 1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
