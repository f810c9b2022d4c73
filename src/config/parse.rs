//! Texts to values, each parsed once. An error is the reason alone, for people; the caller adds the
//! setting's name and where it was set.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

/// The longest name of a site or cluster.
const NAME_BYTES_MAX: usize = 32;

/// Where a node listens: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUrl(String);

impl NodeUrl {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeUrl, String> {
        let wrong = |what: &str| {
            format!("{text:?} {what}: write http://HOST:PORT, the port is usually 7400")
        };
        if text.starts_with("https://") {
            return Err(wrong("asks for TLS, which is not there yet"));
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(wrong("does not begin with http://"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let Some((host, port)) = authority.rsplit_once(':').filter(|(_, p)| !p.ends_with(']'))
        else {
            return Err(wrong("has no port"));
        };
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong("has no port between 1 and 65535"));
        }
        let name_fits = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => name_fits(host),
        };
        if !host_fits {
            return Err(wrong("has no host name or address that can be used"));
        }
        Ok(NodeUrl(format!("http://{authority}")))
    }
}

/// The name of a site or a cluster: `[a-z0-9][a-z0-9-]{0,31}`.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.bytes().all(fits)
        && !text.starts_with('-')
        && (1..=NAME_BYTES_MAX).contains(&text.len())
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, not beginning \
             with -"
        ))
    }
}

/// An IP address and a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address with a port: write it like 127.0.0.1:7400")
    })
}

/// A duration within bounds, such as `500ms` or `5m`.
pub(super) fn duration(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is not a duration: write numbers with units, such as 500ms, 10s or 5m")
    })?;
    if bounds.contains(&duration) {
        Ok(duration)
    } else {
        let (least, most) = (
            humantime::format_duration(*bounds.start()),
            humantime::format_duration(*bounds.end()),
        );
        Err(format!("{text} is out of bounds: use {least} to {most}"))
    }
}

/// A number within bounds.
pub(super) fn number(text: &str, bounds: RangeInclusive<u64>) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!(
            "{text:?} is not a whole number between {} and {}",
            bounds.start(),
            bounds.end()
        )),
    }
}

/// A number of bytes within bounds: bare, or in B, kB, MB, KiB or MiB.
pub(super) fn bytes(text: &str, bounds: RangeInclusive<u64>) -> Result<u64, String> {
    let digits_end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    match size {
        Some(size) if bounds.contains(&size) => Ok(size),
        Some(_) => Err(format!(
            "{text} is out of bounds: use {} to {} bytes",
            bounds.start(),
            bounds.end()
        )),
        None => Err(format!("{text:?} is not a size: write it like 65536, 64KiB or 1MiB")),
    }
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_urls() {
        for good in
            ["http://fra:7400", "http://127.0.0.1:1", "http://[::1]:7400", "http://a.b-c:9/"]
        {
            let url: NodeUrl = good.parse().unwrap();
            assert_eq!(url.as_str(), good.trim_end_matches('/'));
        }
        for (bad, what) in [
            ("fra:7400", "begin with http://"),
            ("https://fra:7400", "TLS"),
            ("http://fra", "no port"),
            ("http://[::1]", "no port"),
            ("http://fra:0", "between 1 and 65535"),
            ("http://fra:74000", "between 1 and 65535"),
            ("http://fra:7400/path", "between 1 and 65535"),
            ("http://:7400", "host"),
            ("http://a b:7400", "host"),
            ("http://user@fra:7400", "host"),
            ("http://[x]:7400", "host"),
        ] {
            let reason = bad.parse::<NodeUrl>().unwrap_err();
            assert!(reason.contains(what), "{bad}: {reason}");
        }
    }

    #[test]
    fn names() {
        for good in ["fra", "0", "a-b-9", &"x".repeat(32)] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in ["", "-a", "Fra", "a_b", "ä", &"x".repeat(33)] {
            name(bad).unwrap_err();
        }
    }

    #[test]
    fn sizes() {
        let any = 0..=u64::MAX;
        for (text, size) in
            [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2mb", 2_000_000)]
        {
            assert_eq!(bytes(text, any.clone()), Ok(size), "{text}");
        }
        for bad in
            ["", "MiB", "1.5MiB", "-1", "1GiB", "99999999999999999999", "18446744073709551615kb"]
        {
            assert!(bytes(bad, any.clone()).unwrap_err().contains("not a size"), "{bad}");
        }
        assert_eq!(
            bytes("4MiB", 1..=3 << 20),
            Err("4MiB is out of bounds: use 1 to 3145728 bytes".to_owned())
        );
    }

    #[test]
    fn durations() {
        let bounds = Duration::ZERO..=Duration::from_secs(60);
        assert_eq!(duration("1m", bounds.clone()), Ok(Duration::from_secs(60)));
        assert_eq!(
            duration("61s", bounds.clone()),
            Err("61s is out of bounds: use 0s to 1m".to_owned())
        );
        for bad in ["", "5", "abc", "-1s"] {
            assert!(duration(bad, bounds.clone()).unwrap_err().contains("not a duration"), "{bad}");
        }
    }
}
