//! Numbers, sizes and ages as people read them; shared by the tables of the CLI and the status page.

use super::types::Timestamp;

/// `1234567` → `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Bytes in powers of 1000 with one decimal: `999 B`, `1.2 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut unit, mut tenths) = (0, n / 100);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", count(tenths / 10), tenths % 10, UNITS[unit])
}

/// `part` of `whole` in percent with one decimal; `-` of nothing.
pub fn percent_of(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let share = part as f64 / whole as f64;
    percent(share)
}

/// A share of 0 to 1 in percent with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Time from `since` to `now` in its two largest units: `5s`, `3m 20s`, `2h 10m`, `4d 1h`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let s = since.seconds_until(now);
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `1 slot`, `2 slots`.
pub fn plural(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_groups_of_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn sizes_have_one_decimal_and_are_cut_not_rounded() {
        for (n, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_999, "999.9 kB"), (8_388_608, "8.3 MB")]
        {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn shares_of_nothing_are_a_dash() {
        assert_eq!(percent_of(1, 3), "33.3 %");
        assert_eq!(percent_of(0, 0), "-");
        assert_eq!(percent(1.0), "100.0 %");
    }

    #[test]
    fn ages_have_two_units() {
        let start = Timestamp::from_unix(1_000_000);
        let at = |s: i64| age(start, Timestamp::from_unix(1_000_000 + s));
        assert_eq!([at(59), at(200), at(7_800), at(349_200)], ["59s", "3m 20s", "2h 10m", "4d 1h"]);
        assert_eq!(age(start, Timestamp::from_unix(0)), "0s", "clock set back");
    }

    #[test]
    fn plurals() {
        assert_eq!((plural(1, "slot"), plural(2_000, "slot")), ("1 slot".into(), "2,000 slots".into()));
    }
}
