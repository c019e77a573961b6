//! `most_common(text)`: counts each text.

use std::collections::HashMap;

use pyxis_sdk::function::Aggregate;

#[derive(Default)]
pub struct MostCommon(HashMap<String, u64>);

impl Aggregate for MostCommon {
    type Input<'a> = (&'a str,);
    type Output = Option<String>;

    fn add(&mut self, (text,): (&str,)) {
        match self.0.get_mut(text) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(text.to_owned(), 1)),
        }
    }

    fn merge(&mut self, other: Self) {
        for (text, count) in other.0 {
            *self.0.entry(text).or_default() += count;
        }
    }

    /// Count, length and bytes of each text.
    fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (text, count) in &self.0 {
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    fn load(mut bytes: &[u8]) -> Option<Self> {
        let mut counts = HashMap::new();
        while !bytes.is_empty() {
            let (count, rest) = bytes.split_first_chunk::<8>()?;
            let (len, rest) = rest.split_first_chunk::<4>()?;
            let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            counts.insert(String::from_utf8(text.to_vec()).ok()?, u64::from_le_bytes(*count));
            bytes = rest;
        }
        Some(Self(counts))
    }

    fn value(self) -> Option<String> {
        // The same whatever the order in which rows came.
        let best = self.0.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then_with(|| b.cmp(a)));
        best.map(|(text, _)| text)
    }
}
