//! "Did you mean …?"

/// The names nearest to `word`, best first, at most three; none when nothing is near.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // Pixie's names carry a prefix (`px/http_data`); what comes after it is what people remember.
    let word = word.rsplit('/').next().unwrap_or(word).to_lowercase();
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| {
            let lower = name.to_lowercase();
            let contains = !word.is_empty() && (lower.contains(&word) || word.contains(&lower));
            (strsim::jaro_winkler(&word, &lower) + if contains { 0.2 } else { 0.0 }, name)
        })
        // Clap's own bound is 0.7; names joined by `_` share beginnings more often, so a little higher.
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    // What is clearly second is not worth a person's time.
    let best = scored.first().map_or(0.0, |(score, _)| *score);
    scored.retain(|(score, _)| *score > best - 0.1);
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `did you mean a, b or c?`, or nothing.
pub fn hint<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = nearest(word, names);
    let (last, first) = near.split_last()?;
    Some(match first {
        [] => format!("did you mean {last}?"),
        _ => format!("did you mean {} or {last}?", first.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_what_was_meant() {
        let scripts = ["http_requests", "service_stats", "slow_requests", "connections", "processes"];
        assert_eq!(nearest("http_request", scripts)[0], "http_requests");
        assert_eq!(nearest("servicestats", scripts)[0], "service_stats");
        assert_eq!(nearest("px/service_stats", scripts)[0], "service_stats");
        assert_eq!(nearest("conections", scripts)[0], "connections");
        assert!(nearest("zzz", scripts).is_empty());
        assert_eq!(hint("proceses", scripts).unwrap(), "did you mean processes?");
    }
}
