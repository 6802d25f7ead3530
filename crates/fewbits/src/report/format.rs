//! Numbers as people read them.

/// Bytes in groups of three digits: `1,005,086`.
pub fn bytes(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The unit of bytes in which `n` is short, and its size.
pub(super) fn unit_of_bytes(n: f64) -> (f64, &'static str) {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    units.into_iter().find(|(size, _)| n >= *size).unwrap_or((1.0, "B"))
}

/// So many digits, whatever the magnitude: `0.0123`, `4.531`, `1.20e-7`.
pub(super) fn significant(x: f64, digits: i32) -> String {
    match x.abs() {
        _ if !x.is_finite() => "not a number".to_string(),
        0.0 => "0".to_string(),
        _ if x < 0.0 => format!("−{}", significant(-x, digits)),
        1e-4..1e6 => {
            let whole_digits = x.abs().log10().floor() as i32 + 1;
            format!("{x:.*}", (digits - whole_digits).max(0) as usize)
        }
        _ => format!("{x:.2e}"),
    }
}

/// A metric, or a change of one, to four decimals, or five digits where it is large.
pub(super) fn metric(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "not a number".to_string(),
        ..=-0.00005 => format!("−{}", metric(-value)),
        ..10.0 => format!("{:.4}", value.max(0.0)),
        _ => significant(value, 5),
    }
}

/// A fraction in percent, to three digits: `3.10 %`.
pub(super) fn percent(fraction: f64) -> String {
    match (100.0 * fraction).is_finite() {
        true => format!("{} %", significant(100.0 * fraction, 3)),
        false => "not a number".to_string(),
    }
}

/// A fraction of rows in percent, to two decimals, never rounded to all of them.
pub(super) fn share(fraction: f64) -> String {
    match fraction {
        _ if !fraction.is_finite() => "not a number".to_string(),
        0.9999..1.0 => "99.99 %".to_string(),
        _ => format!("{:.2} %", 100.0 * fraction),
    }
}

/// A name of at most `letters` letters, the middle left out: both ends tell names apart.
pub(super) fn shortened(name: &str, letters: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= letters {
        return name.to_string();
    }
    let end = (letters - 1) * 2 / 3;
    let start = letters - 1 - end;
    all[..start].iter().chain(&['…']).chain(&all[all.len() - end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(1_005_086), "1,005,086");
        assert_eq!(unit_of_bytes(1_005_086.0), (1e6, "MB"));
        assert_eq!(unit_of_bytes(999.0), (1.0, "B"));
        assert_eq!(significant(0.0123456, 3), "0.0123");
        assert_eq!(significant(-123_456.0, 3), "−123456");
        assert_eq!(significant(1.2e-7, 3), "1.20e-7");
        assert_eq!(metric(0.85), "0.8500");
        assert_eq!(metric(1234.5678), "1234.6");
        assert_eq!(percent(0.031), "3.10 %");
        assert_eq!(share(1.0), "100.00 %");
        assert_eq!(share(0.99999), "99.99 %");
    }

    #[test]
    fn what_is_no_number_says_so() {
        for text in [metric(f64::NAN), percent(f64::INFINITY), share(f64::NAN)] {
            assert_eq!(text, "not a number");
        }
    }

    #[test]
    fn what_is_below_zero_says_so_unless_it_rounds_to_none() {
        assert_eq!(metric(-0.0012), "−0.0012");
        assert_eq!(metric(-0.00001), "0.0000");
        assert_eq!(metric(-1234.5678), "−1234.6");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("encoder.layer.0.query.weight", 10), "enc…weight");
        assert_eq!(shortened("héad", 4), "héad");
    }
}
