//! What a profile of the AWS tools says of where to ask: region and endpoint. Its keys are read by the signer itself.

use std::path::PathBuf;

use super::ini::Ini;

/// What a profile says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Profile {
    /// Of the profile that is named, or of the one that is in use on this machine. A file that is not there says nothing.
    pub fn read(named: Option<String>) -> Self {
        let name = named.or_else(|| set("AWS_PROFILE")).or_else(|| set("AWS_DEFAULT_PROFILE"));
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".aws/config"));
        let Some(path) = set("AWS_CONFIG_FILE").map(PathBuf::from).or_else(home) else { return Self::default() };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut profile = Self::of(&text, name.as_deref().unwrap_or("default"));
        if set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            profile.endpoint = None;
        }
        profile
    }

    fn of(text: &str, name: &str) -> Self {
        let ini = Ini::read(text);
        let whole = format!("profile {name}");
        let Some(section) = ini.section(&whole).or_else(|| ini.section(name)) else { return Self::default() };
        let services = section.get("services").and_then(|services| ini.section(&format!("services {services}")));
        let endpoint = services.and_then(|services| services.get("s3.endpoint_url")).or_else(|| section.get("endpoint_url"));
        Self { region: section.get("region").map(str::to_owned), endpoint: endpoint.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_region_and_endpoint() {
        let text = "[default]\nregion = eu-a-1\n[profile x]\nregion = eu-b-2\nendpoint_url = http://a\nservices = mine\n\
                    [services mine]\ns3 =\n  endpoint_url = http://b\n[profile y]\nendpoint_url = http://c\n";
        let says = |name| {
            let profile = Profile::of(text, name);
            (profile.region, profile.endpoint)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(says("default"), (some("eu-a-1"), None));
        assert_eq!(says("x"), (some("eu-b-2"), some("http://b")));
        assert_eq!(says("y"), (None, some("http://c")));
        assert_eq!(says("z"), (None, None));
    }
}
