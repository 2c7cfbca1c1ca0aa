//! Where in the order of the names so many more names will have come by: guessed from those of one page.
//!
//! The names of a page differ from one place on, and there they use some characters: digits, hexadecimal digits, letters.
//! Read as numbers with these characters as digits, the first and the last of them say how far a thousand names reach,
//! and so where the next thousands end. A wrong guess costs a request or two, and is never wrong about what is listed.

/// How many characters of a name are counted with.
const DIGITS: u32 = 4;
/// How many names of a page are looked at for the characters in use.
const LOOKED_AT: usize = 128;
/// Beyond so many different characters names are no numbers.
const MOST_CHARACTERS: usize = 1000;

/// How the names of one page went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stride {
    /// The characters in use where the names differ, in order.
    characters: Vec<char>,
    /// The first character in which the names differ.
    at: usize,
    /// How far the last name is from the first, and how many names that is.
    far: u64,
    names: u64,
}

impl Stride {
    /// Of names in order. `None` for less than two.
    pub fn of<'a>(names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Option<Self> {
        let count = names.len();
        let first: Vec<char> = names.clone().next()?.chars().collect();
        let last: Vec<char> = names.clone().last()?.chars().collect();
        let at = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
        // A place where all names have the same character is a separator, and no digit.
        let mut common: Vec<Option<char>> = first.iter().copied().map(Some).collect();
        let mut characters: Vec<char> = Vec::new();
        let looked_at: Vec<Vec<char>> =
            names.step_by(count.div_ceil(LOOKED_AT).max(1)).map(|name| name.chars().collect()).chain([last.clone()]).collect();
        for name in &looked_at {
            for (place, character) in name.iter().enumerate().skip(at) {
                match common.get_mut(place) {
                    Some(common) if *common == Some(*character) => {}
                    Some(common) => *common = None,
                    None => characters.push(*character),
                }
            }
        }
        for name in looked_at.iter().chain([&first]) {
            let varying = name.iter().enumerate().filter(|(place, _)| common.get(*place) == Some(&None));
            characters.extend(varying.map(|(_, character)| *character));
        }
        characters.sort_unstable();
        characters.dedup();
        if characters.len() < 2 || characters.len() > MOST_CHARACTERS {
            return None;
        }
        let stride = Self { characters, at, far: 0, names: count as u64 - 1 };
        let far = stride.number(&last).checked_sub(stride.number(&first)).filter(|far| *far > 0)?;
        Some(Self { far, ..stride })
    }

    /// The name that about so many names lie behind `from`. `None` when there can be none below this prefix, whose
    /// length is in characters.
    pub fn ahead(&self, from: &str, names: u64, prefix: usize) -> Option<String> {
        let mut to: Vec<char> = from.chars().collect();
        let base = self.characters.len() as u64;
        let all = base.pow(DIGITS);
        let number = self.number(&to) + (self.far.saturating_mul(names) / self.names).max(1);
        let (mut carry, mut rest) = (number / all, number % all);
        to.resize(self.at, self.characters[0]);
        for place in (prefix..self.at).rev() {
            if carry == 0 {
                break;
            }
            let Ok(digit) = self.characters.binary_search(&to[place]) else { continue };
            let sum = digit as u64 + carry;
            carry = sum / base;
            to[place] = self.character(sum % base);
        }
        if carry > 0 {
            return None;
        }
        for place in (0..DIGITS).rev() {
            let one = base.pow(place);
            to.push(self.character(rest / one));
            rest %= one;
        }
        let to: String = to.into_iter().collect();
        (to.as_str() > from).then_some(to)
    }

    fn character(&self, digit: u64) -> char {
        usize::try_from(digit).ok().and_then(|digit| self.characters.get(digit)).copied().unwrap_or_default()
    }

    /// The characters that are counted with, as a number. What is not there counts as the first.
    fn number(&self, name: &[char]) -> u64 {
        let last = self.characters.len() - 1;
        let digit = |place: usize| {
            name.get(self.at + place).map_or(0, |found| self.characters.partition_point(|other| other < found).min(last))
        };
        (0..DIGITS as usize).fold(0, |number, place| number * self.characters.len() as u64 + digit(place) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[String]) -> Stride {
        Stride::of(names.iter().map(String::as_str)).expect("they differ")
    }

    /// How many of `names` lie up to the guess that is made behind the first thousand of them.
    fn reached(names: &[String], more: u64) -> usize {
        let guess = of(&names[..1000]).ahead(&names[999], more, 0).expect("a guess");
        names.partition_point(|name| *name <= guess)
    }

    #[test]
    fn numbers_are_counted_on() {
        let names: Vec<String> = (0..100_000).map(|n| format!("photos/object-{n:07}.jpg")).collect();
        assert_eq!(reached(&names, 1000), 2000);
        assert_eq!(reached(&names, 20_000), 21_000);
        // A carry into places that were all alike so far.
        let guess = of(&names[..1000]).ahead("photos/object-0009999.jpg", 1000, 0).expect("a guess");
        assert!(guess.starts_with("photos/object-0010"), "{guess}");
    }

    #[test]
    fn hashes_are_counted_on() {
        let mut names: Vec<String> = (0..50_000_u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        names.sort();
        let reached = reached(&names, 9000);
        assert!((9000..11_000).contains(&reached), "{reached}");
    }

    #[test]
    fn a_carry_goes_over_what_is_no_digit() {
        let names: Vec<String> = (0..1000).map(|n| format!("2026/01/{:02}/{n:04}", n / 40)).collect();
        let guess = of(&names).ahead("2026/01/99/0999", 2000, 0).expect("a guess");
        assert!(guess.starts_with("2026/02/"), "{guess}");
    }

    #[test]
    fn there_is_nothing_beyond_the_last_digit() {
        let names: Vec<String> = (0..1000).map(|n| format!("p/{n:03}")).collect();
        assert_eq!(of(&names).ahead("p/999", 5000, 2), None);
        assert_eq!(Stride::of(["a"].into_iter()), None);
        assert_eq!(Stride::of(["a", "a"].into_iter()), None);
        assert_eq!(Stride::of([].into_iter()), None);
    }

    proptest::proptest! {
        #[test]
        fn a_guess_lies_ahead(names in proptest::collection::btree_set("[a-f0-9ü✓/ -]{0,12}", 2..50), more in 1_u64..10_000) {
            let names: Vec<String> = names.into_iter().collect();
            if let Some(stride) = Stride::of(names.iter().map(String::as_str)) {
                for from in &names {
                    if let Some(guess) = stride.ahead(from, more, 0) {
                        proptest::prop_assert!(guess > *from);
                    }
                }
            }
        }
    }
}
