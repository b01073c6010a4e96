//! Where the server is: `[LABEL=]nfs://HOST[:PORT]/EXPORT[?nfsport=N&mountport=N]`.

use std::str::FromStr;

/// Longest label: it heads a table's column.
const LABEL_BYTES_MAX: usize = 32;

/// A server and its export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is called in the results.
    pub label: String,
    /// Name or address.
    pub host: String,
    /// Path of the export.
    pub export: String,
    /// Port of NFS; missing: ask the portmapper.
    pub nfs_port: Option<u16>,
    /// Port of MOUNT; missing: ask the portmapper.
    pub mount_port: Option<u16>,
    /// As it was given, without the label.
    pub url: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (label, url) = match text.find("nfs://") {
            Some(0) => (None, text),
            Some(at) if text[..at].ends_with('=') => (Some(&text[..at - 1]), &text[at..]),
            _ => {
                return Err(
                    "give nfs://HOST[:PORT]/EXPORT, or LABEL=nfs://HOST[:PORT]/EXPORT".into(),
                );
            }
        };
        let rest = &url["nfs://".len()..];
        let slash = rest
            .find('/')
            .ok_or("the path of the export is missing: nfs://HOST/EXPORT")?;
        let (authority, path) = rest.split_at(slash);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err("the host is missing: nfs://HOST/EXPORT".into());
        }
        let mut target = Self {
            label: label.unwrap_or(host).to_owned(),
            host: host.to_owned(),
            export: path.to_owned(),
            nfs_port: port,
            mount_port: None,
            url: url.to_owned(),
        };
        if target.label.is_empty() || target.label.len() > LABEL_BYTES_MAX {
            return Err(format!("a label has 1 to {LABEL_BYTES_MAX} bytes"));
        }
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("nfsport", n)) => target.nfs_port = Some(parse_port(n)?),
                Some(("mountport", n)) => target.mount_port = Some(parse_port(n)?),
                Some(("version", "3")) => {}
                _ => {
                    return Err(format!(
                        "`{pair}` is not understood; known are nfsport=N and mountport=N"
                    ));
                }
            }
        }
        Ok(target)
    }
}

/// `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(v6) = authority.strip_prefix('[') {
        let (host, rest) = v6.split_once(']').ok_or("`[` without `]` in the host")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(parse_port(port)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` behind the host is not understood")),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, Some(parse_port(port)?))),
        None => Ok((authority, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is not a port")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::Target;

    fn parts(text: &str) -> (String, String, String, Option<u16>, Option<u16>) {
        let t: Target = text.parse().unwrap();
        (t.label, t.host, t.export, t.nfs_port, t.mount_port)
    }

    fn expect(
        a: &str,
        b: &str,
        c: &str,
        d: Option<u16>,
        e: Option<u16>,
    ) -> (String, String, String, Option<u16>, Option<u16>) {
        (a.into(), b.into(), c.into(), d, e)
    }

    #[test]
    fn urls_are_understood() {
        assert_eq!(parts("nfs://h/d"), expect("h", "h", "/d", None, None));
        assert_eq!(
            parts("a=nfs://h:1/d/e?mountport=2"),
            expect("a", "h", "/d/e", Some(1), Some(2))
        );
        assert_eq!(
            parts("nfs://[::1]:5/d?version=3&nfsport=6"),
            expect("::1", "::1", "/d", Some(6), None)
        );
        assert_eq!(parts("x=nfs://[::1]/").1, "::1");
    }

    #[test]
    fn bad_urls_are_refused() {
        for bad in [
            "",
            "h:/d",
            "http://h/d",
            "nfs://h",
            "nfs:///d",
            "=nfs://h/d",
            "anfs://h/d",
            "nfs://h:0/d",
            "nfs://h:x/d",
            "nfs://h/d?port=1",
            "nfs://h/d?nfsport=70000",
            "nfs://[::1/d",
            "nfs://[::1]x/d",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
