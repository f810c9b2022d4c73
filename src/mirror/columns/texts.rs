//! Texts that MySQL would keep as they are: decimals, times, addresses. Canonical ones only where they
//! are keys; else those, too, of which MySQL would print more or fewer zeros.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The text of a decimal as MySQL prints it, where it fits without rounding.
pub(super) fn decimal(
    text: &str,
    digits: usize,
    scale: usize,
    is_unsigned: bool,
) -> Result<String, String> {
    let malformed = || format!("{} is no decimal number, such as \"12.50\"", quoted(text));
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let has_point = rest.contains('.');
    if whole.is_empty() || !all_digits(rest.replacen('.', "", 1).as_str()) {
        return Err(malformed());
    }
    if has_point && fraction.is_empty() {
        return Err(malformed());
    }
    let whole = whole.trim_start_matches('0');
    let (kept, cut) = fraction.split_at(fraction.len().min(scale));
    if whole.len() > digits - scale || cut.bytes().any(|b| b != b'0') {
        return Err(format!("{} does not fit DECIMAL({digits},{scale})", quoted(text)));
    }
    let is_zero = whole.is_empty() && kept.bytes().all(|b| b == b'0');
    if is_unsigned && !sign.is_empty() && !is_zero {
        return Err(format!("{} is below 0, the column is UNSIGNED", quoted(text)));
    }
    let sign = if is_zero { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{kept:0<scale$}"),
    })
}

/// A date as MySQL prints it. Whether there is such a day is for MySQL to say.
pub(super) fn date(text: &str) -> Result<String, String> {
    if fits(text, "dddd-dd-dd") {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is no date, such as \"2024-02-29\"", quoted(text)))
    }
}

/// A date and time as MySQL prints it, with so many digits behind the seconds.
pub(super) fn date_time(text: &str, fraction: usize) -> Result<String, String> {
    let (seconds, rest) = text.split_at_checked(19).unwrap_or((text, ""));
    if !fits(seconds, "dddd-dd-dd dd:dd:dd") {
        return Err(format!("{} is no time, such as \"2024-02-29 12:34:56\"", quoted(text)));
    }
    with_fraction(text, seconds, rest, fraction)
}

/// A span of time as MySQL prints it.
pub(super) fn time(text: &str, fraction: usize) -> Result<String, String> {
    let point = text.find('.').unwrap_or(text.len());
    let (seconds, rest) = text.split_at(point);
    let digits = seconds.strip_prefix('-').unwrap_or(seconds);
    let canonical = fits(digits, "dd:dd:dd") || fits(digits, "ddd:dd:dd") && digits >= "100";
    let is_zero = text.bytes().all(|b| !matches!(b, b'1'..=b'9'));
    if !canonical || seconds.starts_with('-') && is_zero {
        return Err(format!("{} is no time, such as \"-12:34:56\"", quoted(text)));
    }
    with_fraction(text, seconds, rest, fraction)
}

/// Of what MySQL says in one of its protocols: `fraction` digits behind the seconds.
pub(super) fn at_precision(text: &str, fraction: usize) -> String {
    let (seconds, digits) = text.split_once('.').unwrap_or((text, ""));
    let digits = &digits[..digits.len().min(fraction)];
    match fraction {
        0 => seconds.to_owned(),
        _ => format!("{seconds}.{digits:0<fraction$}"),
    }
}

fn with_fraction(text: &str, seconds: &str, rest: &str, fraction: usize) -> Result<String, String> {
    let digits = match rest.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => digits,
        None if rest.is_empty() => "",
        _ => return Err(format!("{} does not end as a time", quoted(text))),
    };
    let (_, cut) = digits.split_at(digits.len().min(fraction));
    if cut.bytes().any(|b| b != b'0') {
        return Err(format!("{} has more than {fraction} digits behind its seconds", quoted(text)));
    }
    Ok(at_precision(&format!("{seconds}.{digits}"), fraction))
}

/// `d` is a digit, all else itself.
fn fits(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}

/// A UUID as MySQL prints it: in small letters.
pub(super) fn uuid(text: &str) -> Result<String, String> {
    let canonical = text.parse::<uuid::Uuid>().is_ok_and(|uuid| uuid.to_string() == text);
    if canonical {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is no UUID in small letters with hyphens", quoted(text)))
    }
}

/// An address.
pub(super) fn address(text: &str, is_v6: bool) -> Result<String, String> {
    let is_one = match is_v6 {
        true => text.parse::<Ipv6Addr>().is_ok(),
        false => text.parse::<Ipv4Addr>().is_ok(),
    };
    if is_one { Ok(text.to_owned()) } else { Err(format!("{} is no such address", quoted(text))) }
}

/// The beginning of a text, for a message.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return format!("{text:?}");
    }
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{shown:?}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_neither_rounded_nor_cut() {
        for (text, printed) in [
            ("12.50", "12.50"),
            ("12.5", "12.50"),
            ("-0012", "-12.00"),
            ("999.99", "999.99"),
            ("-0.00", "0.00"),
            ("0.5000", "0.50"),
            (".5", ""),
            ("5.", ""),
            ("", ""),
            ("-", ""),
            ("1e2", ""),
            ("1.2.3", ""),
            ("+1", ""),
            ("1000", ""),
            ("0.005", ""),
        ] {
            let read = decimal(text, 5, 2, false);
            assert_eq!(read.as_deref().unwrap_or_default(), printed, "{text}: {read:?}");
        }
        assert_eq!(decimal("7", 65, 0, true).unwrap(), "7");
        assert!(decimal("-7", 5, 0, true).unwrap_err().contains("UNSIGNED"));
        assert_eq!(decimal("0.25", 2, 2, false).unwrap(), "0.25");
    }

    #[test]
    fn times_are_taken_to_their_precision_only() {
        assert_eq!(date_time("2024-02-29 12:34:56", 0).unwrap(), "2024-02-29 12:34:56");
        assert_eq!(date_time("2024-02-29 12:34:56.1", 3).unwrap(), "2024-02-29 12:34:56.100");
        assert_eq!(date_time("2024-02-29 12:34:56.100", 1).unwrap(), "2024-02-29 12:34:56.1");
        assert!(date_time("2024-02-29 12:34:56.101", 1).unwrap_err().contains("more than 1"));
        for bad in [
            "2024-02-29",
            "2024-02-29T12:34:56",
            "2024-02-29 12:34:56Z",
            "2024-02-29 12:34:56.",
            "ä",
        ] {
            assert!(date_time(bad, 6).is_err(), "{bad}");
        }
        assert_eq!(date("0000-00-00").unwrap(), "0000-00-00");
        assert!(date("2024-2-29").is_err());
        for good in ["-838:59:59", "00:00:00", "100:00:00"] {
            assert_eq!(time(good, 0).unwrap(), good);
        }
        assert_eq!(time("-00:00:00.5", 6).unwrap(), "-00:00:00.500000");
        for bad in
            ["-00:00:00", "010:00:00", "1:00:00", "12:00", "2024-02-29 12:34:56", "-00:00:00.0"]
        {
            assert!(time(bad, 6).is_err(), "{bad}");
        }
        assert_eq!(at_precision("12:00:00.123456", 0), "12:00:00");
        assert_eq!(at_precision("12:00:00", 2), "12:00:00.00");
    }

    #[test]
    fn uuids_and_addresses() {
        assert!(uuid("123e4567-e89b-12d3-a456-426655440000").is_ok());
        assert!(uuid("123E4567-E89B-12D3-A456-426655440000").is_err());
        assert!(address("::1", true).is_ok() && address("1.2.3.4", true).is_err());
        assert!(address("1.2.3.4", false).is_ok());
    }
}
