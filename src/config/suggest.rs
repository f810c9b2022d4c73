//! "Did you mean": the known name nearest to one that is not known.

/// The name of `known` nearest to `name`, where one is near enough to be meant.
///
/// A name also matches without its section (`auto_create` for `tables.auto_create`).
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| {
            let bare = candidate.rsplit('.').next().unwrap_or(candidate);
            (distance(name, candidate).min(distance(name, bare)), candidate)
        })
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, _)| distance <= distance_max)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many letters to add, drop or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a_letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b_letter) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a_letter != b_letter);
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
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("peers", "peer"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn it_suggests_what_is_near_and_nothing_else() {
        let known = ["listen", "peer", "tables.auto_create"];
        assert_eq!(nearest("peers", known), Some("peer"));
        assert_eq!(nearest("lsiten", known), Some("listen"));
        assert_eq!(nearest("auto_create", known), Some("tables.auto_create"));
        assert_eq!(nearest("table.auto_create", known), Some("tables.auto_create"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
