//! The address of the database to mirror into.

use std::{fmt, path::PathBuf, str::FromStr};

use super::Secret;

const PORT_DEFAULT: u16 = 3306;
const EXAMPLE: &str = "mysql://USER[:PASSWORD]@HOST:PORT/DATABASE";

/// `mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE`, taken apart.
///
/// `%XX` in the user, the password and the database stands for that byte. Shown (`Display`)
/// without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlTarget {
    /// Whom to connect as.
    pub user: String,
    /// Where one is needed.
    pub password: Option<Secret>,
    /// A name or address; an IPv6 address without its brackets.
    pub host: String,
    /// 3306 where the URL has none.
    pub port: u16,
    /// The database that holds the mirrored tables.
    pub database: String,
    /// Whether MySQL must prove who it is, and all goes encrypted. Default: no. Never in the URL.
    pub tls: Option<MysqlTls>,
}

/// How MySQL proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlTls {
    /// The authorities, PEM, of which one must have signed its certificate. Default: those that
    /// browsers trust.
    pub ca_file: Option<PathBuf>,
}

impl FromStr for MysqlTarget {
    /// The reason; it never quotes the URL, for a password may be in it.
    type Err = String;

    fn from_str(url: &str) -> Result<MysqlTarget, String> {
        let wrong = |what: &str| format!("the URL {what}: write {EXAMPLE}");
        let rest =
            url.strip_prefix("mysql://").ok_or_else(|| wrong("does not begin with mysql://"))?;
        // A password may hold any sign but a slash; the last @ ends it.
        let (place, database) = rest.rsplit_once('/').ok_or_else(|| wrong("names no database"))?;
        let (login, authority) = place.rsplit_once('@').ok_or_else(|| wrong("names no user"))?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let decode = |text: &str, what: &str| {
            percent_decode(text).ok_or_else(|| wrong(&format!("has a broken %XX in its {what}")))
        };
        let target = MysqlTarget {
            user: decode(user, "user")?,
            password: password
                .map(|password| decode(password, "password").map(Secret::new))
                .transpose()?,
            database: decode(database, "database")?,
            ..MysqlTarget::at(authority).ok_or_else(|| wrong("has no HOST or HOST:PORT"))?
        };
        if target.user.is_empty() {
            return Err(wrong("names no user"));
        }
        if target.database.contains('?') {
            return Err(wrong("has parameters, which are not understood"));
        }
        if target.database.is_empty() || target.database.len() > 64 {
            return Err(wrong("names no database, or one longer than 64 bytes"));
        }
        Ok(target)
    }
}

impl MysqlTarget {
    fn at(authority: &str) -> Option<MysqlTarget> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|&port| port > 0)?,
            None => PORT_DEFAULT,
        };
        let host_fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || !host.bytes().all(host_fits) {
            return None;
        }
        Some(MysqlTarget {
            user: String::new(),
            password: None,
            host: host.to_owned(),
            port,
            database: String::new(),
            tls: None,
        })
    }
}

impl fmt::Display for MysqlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MysqlTarget { user, host, port, database, .. } = self;
        if host.contains(':') {
            write!(f, "mysql://{user}@[{host}]:{port}/{database}")
        } else {
            write!(f, "mysql://{user}@{host}:{port}/{database}")
        }
    }
}

/// A URL as it may be shown, whether it can be parsed or not.
pub(super) fn masked(url: &str) -> String {
    match url.parse::<MysqlTarget>() {
        Ok(MysqlTarget { password: None, .. }) => url.to_owned(),
        Ok(target) => {
            let shown = target.to_string();
            shown.replacen('@', ":***@", 1)
        }
        Err(_) if url.is_empty() || url == "off" => url.to_owned(),
        Err(_) => "(hidden: not a URL that is understood)".to_owned(),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            // from_str_radix alone would accept a sign.
            if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<MysqlTarget, String> {
        url.parse()
    }

    #[test]
    fn its_parts() {
        let target = parse("mysql://shop:p%40s:s@w@db.example:3307/my%20shop").unwrap();
        assert_eq!(target.user, "shop");
        assert_eq!(target.password.as_ref().unwrap().expose(), "p@s:s@w");
        assert_eq!((target.host.as_str(), target.port), ("db.example", 3307));
        assert_eq!(target.database, "my shop");
        assert_eq!(parse("mysql://u@h/d").unwrap().port, 3306);
        assert_eq!(parse("mysql://u@[::1]:3306/d").unwrap().host, "::1");
        assert_eq!(parse("mysql://u@[::1]:3306/d").unwrap().to_string(), "mysql://u@[::1]:3306/d");
    }

    #[test]
    fn its_password_is_never_shown() {
        let target = parse("mysql://shop:hunter2@h:3306/d").unwrap();
        assert_eq!(target.to_string(), "mysql://shop@h:3306/d");
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(masked("mysql://shop:hunter2@h:3306/d"), "mysql://shop:***@h:3306/d");
        assert_eq!(masked("mysql://shop@h:3306/d"), "mysql://shop@h:3306/d");
        assert!(!masked("mysql:/shop:hunter2@h/d").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_the_url() {
        for (bad, what) in [
            ("postgres://u:hunter2@h/d", "begin with mysql://"),
            ("mysql://h/d", "no user"),
            ("mysql://:hunter2@h/d", "no user"),
            ("mysql://u:hunter2@h", "no database"),
            ("mysql://u:hunter2@h/", "no database"),
            ("mysql://u:hunter2@h/d?ssl=1", "parameters"),
            ("mysql://u:hunter2@h:0/d", "HOST:PORT"),
            ("mysql://u:hunter2@/d", "HOST:PORT"),
            ("mysql://u:hunter2%zz@h/d", "%XX in its password"),
        ] {
            let reason = parse(bad).unwrap_err();
            assert!(reason.contains(what) && !reason.contains("hunter2"), "{bad}: {reason}");
        }
    }
}
