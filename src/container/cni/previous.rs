//! `prevResult`: the result of the plugin before kport. It has the container's addresses, and is also kport's result.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::super::code::{Code, Failure};
use super::super::fields::{field, text};
use super::network::Version;

/// The addresses of the container on this network, in the order of the result: those of the interface `ifname` in a container,
/// and those without an interface. Addresses of the host are omitted.
pub fn addresses(result: &Value, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let Value::Object(result) = result else {
        return Err(Failure::new(Code::Decode, "prevResult is not a JSON object"));
    };
    let interfaces: Vec<Map<String, Value>> = list(result, "interfaces")?;
    let mut found = vec![];
    for ip in list(result, "ips")? {
        let Some(address) = text(&ip, "address")? else {
            return Err(Failure::new(Code::Decode, "prevResult.ips: an entry has no address"));
        };
        let network: IpNet = address
            .parse()
            .map_err(|e| Failure::new(Code::Decode, format!("prevResult.ips: address {address:?}: {e}")))?;
        // a result of an early version may count from -1
        let index = field::<i64>(&ip, "interface")?.and_then(|index| usize::try_from(index).ok());
        if let Some(interface) = index.and_then(|index| interfaces.get(index)) {
            let name = text(interface, "name")?;
            if name.as_deref() != Some(ifname) || text(interface, "sandbox")?.is_none() {
                continue;
            }
        }
        if !found.contains(&network.addr()) {
            found.push(network.addr());
        }
    }
    Ok(found)
}

fn list(result: &Map<String, Value>, key: &str) -> Result<Vec<Map<String, Value>>, Failure> {
    field(result, key)
        .map(Option::unwrap_or_default)
        .map_err(|e| Failure::new(e.code, format!("prevResult.{}", e.details)))
}

/// The result in the form of `version`: unchanged, unless it has another version. Before 1.0.0 an address has a field for its
/// family.
pub fn as_version(result: &Value, version: Version) -> Value {
    let mut result = result.clone();
    let Value::Object(fields) = &mut result else { return result };
    let came = fields.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
    if came.as_deref() == Some(version.name()) {
        return result;
    }
    fields.insert("cniVersion".to_owned(), json!(version.name()));
    if came.is_none_or(|came| came.is_empty()) {
        return result;
    }
    for ip in fields.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let Value::Object(ip) = ip else { continue };
        let inet6 = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        if version < Version::V1_0_0 {
            ip.insert("version".to_owned(), json!(if inet6 { "6" } else { "4" }));
        } else {
            ip.remove("version");
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_host_are_left_out() {
        let result = json!({
            "interfaces": [
                { "name": "bridge0" },
                { "name": "eth0", "sandbox": "web" },
                { "name": "eth1", "sandbox": "web" },
                { "name": "eth0" },
            ],
            "ips": [
                { "address": "10.88.0.1/16", "interface": 0 },
                { "address": "10.88.0.5/16", "interface": 1 },
                { "address": "10.89.0.5/16", "interface": 2 },
                { "address": "10.90.0.5/16", "interface": 3 },
                { "address": "fd00::5/64" },
                { "address": "10.91.0.5/16", "interface": 9 },
                { "address": "10.92.0.5/16", "interface": -1 },
                { "address": "10.88.0.5/16", "interface": null },
            ],
        });
        let found = addresses(&result, "eth0").unwrap();
        let expected: Vec<IpAddr> =
            ["10.88.0.5", "fd00::5", "10.91.0.5", "10.92.0.5"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(found, expected);
        for (result, says) in [
            (json!({ "ips": [ { "address": "10.88.0.5" } ] }), "10.88.0.5"),
            (json!({ "ips": [ { "address": 5 } ] }), "address is 5"),
            (json!({ "ips": [ {} ] }), "no address"),
            (json!({ "ips": {} }), "prevResult.ips"),
            (json!({ "ips": [ 5 ] }), "prevResult.ips"),
            (json!([]), "not a JSON object"),
        ] {
            let failure = addresses(&result, "eth0").unwrap_err();
            assert_eq!(failure.code, Code::Decode);
            assert!(failure.details.contains(says), "{failure}");
        }
    }

    #[test]
    fn a_result_changes_only_where_the_version_does() {
        let result = json!({ "cniVersion": "1.0.0", "ips": [ { "address": "10.0.0.2/24" } ], "x": { "y": [1, null] } });
        assert_eq!(as_version(&result, Version::V1_0_0), result);
        let old = as_version(&result, Version::V0_4_0);
        assert_eq!((&old["cniVersion"], &old["ips"][0]["version"]), (&json!("0.4.0"), &json!("4")));
        assert_eq!(as_version(&old, Version::V1_0_0), result);
        let mut unnamed = result.clone();
        unnamed.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(as_version(&unnamed, Version::V1_0_0), result);
    }
}
