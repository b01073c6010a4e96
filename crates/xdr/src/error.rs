//! What can be wrong with received XDR data. Every error is the peer's; it says what and where.

/// Data that is not what the reader was asked to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR data at byte {offset}: {kind}")]
pub struct XdrError {
    /// Where the offending item begins, counted from the start of the reader's buffer.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: XdrErrorKind,
}

/// What is wrong with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XdrErrorKind {
    /// The data ends inside the item.
    #[error("needs {need} bytes, {have} are left")]
    Truncated {
        /// Bytes the item takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A length or count is beyond its limit.
    #[error("length {len} is above the limit of {max}")]
    TooLong {
        /// The length as sent.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A bool that is neither 0 nor 1.
    #[error("{0} is not a bool")]
    NotBool(u32),
    /// An enum value or union arm that does not exist.
    #[error("{value} is not a value of {what}")]
    NotInEnum {
        /// The RFC's name of the enum.
        what: &'static str,
        /// The value as sent.
        value: u32,
    },
    /// Bytes follow the last item.
    #[error("{0} bytes too many")]
    Trailing(usize),
}
