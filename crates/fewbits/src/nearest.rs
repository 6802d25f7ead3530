//! The names that someone may have meant who wrote another.

/// Names that are told.
const TOLD: usize = 3;

/// Those of `names` that are most like `wanted`, the most alike first, in quotes; none where nothing
/// is alike.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = wanted.chars().collect();
    let mut alike: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let name_chars: Vec<char> = name.chars().collect();
            let longest = wanted.len().max(name_chars.len());
            // Names of which less than half is the same are others. Where the lengths tell, nothing
            // is compared.
            let most = longest / 2;
            let apart = wanted.len().abs_diff(name_chars.len());
            let distance = (apart <= most).then(|| distance(&wanted, &name_chars))?;
            (distance <= most).then_some((distance, name))
        })
        .collect();
    alike.sort_unstable();
    alike.dedup();
    alike.truncate(TOLD);
    alike.into_iter().map(|(_, name)| format!("'{name}'")).collect()
}

/// How many letters must be inserted, removed or replaced to make one of the other (Levenshtein 1966).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_apart() {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, apart) in
            [("", "", 0), ("", "ab", 2), ("weight", "weihgt", 2), ("käse", "kase", 1)]
        {
            assert_eq!(distance(&letters(a), &letters(b)), apart, "{a} {b}");
            assert_eq!(distance(&letters(b), &letters(a)), apart, "{b} {a}");
        }
    }

    #[test]
    fn the_most_alike_come_first() {
        let names = ["fc1.weight", "fc2.weight", "fc1.bias", "x", "", "fc10.weight"];
        let found = nearest("fc1.weigth", names);
        assert_eq!(found, ["'fc1.weight'", "'fc10.weight'", "'fc2.weight'"]);
        assert!(nearest("something else", names).is_empty());
    }
}
