//! The question who has an IPv6 address, and its answers: neighbour solicitation and advertisement (RFC 4861).
//!
//! The question has one of two forms. With an address of ours as its source, the answer comes to us alone. Without
//! one (source ::, no source link-layer address; RFC 4862 section 5.4.2), as in duplicate address detection, the
//! answer goes to all machines on the network with the override flag (RFC 4861 section 7.2.4): it turns everybody's
//! traffic to whoever answers. So the second form must never be sent for an address that one of ours may be holding.
//!
//! Must not know: sockets, when is asked, whose link-layer addresses are ours.

use std::net::Ipv6Addr;

use crate::announce::{ND_NEIGHBOR_ADVERT, OPTION_TARGET_LINK_ADDRESS};
use crate::checksum::{fold, pseudo, sum};

pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const PROTOCOL_ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
/// Where the protocol and the type of the message are in a frame, for a filter.
pub(crate) const PROTOCOL_AT: u32 = 14 + 6;
pub(crate) const TYPE_AT: u32 = 14 + 40;

const ETHERNET_BYTES: usize = 14;
const HEADER_BYTES: usize = 40;
/// Type, code, checksum, flags and target; options follow (sections 4.3 and 4.4).
const MESSAGE_BYTES: usize = 24;
const OPTION_BYTES: usize = 8;
const ND_NEIGHBOR_SOLICIT: u8 = 135;
const NA_FLAG_SOLICITED: u8 = 0x40;
const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;
/// Section 7.1.2: anything else came through a router.
const ND_HOP_LIMIT: u8 = 255;

/// Where all who may have `target` listen (RFC 4291 section 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// The Ethernet address of a multicast group (RFC 2464 section 7).
fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// To whom the question for `target` goes.
pub(crate) fn destination(target: Ipv6Addr) -> [u8; 6] {
    multicast_mac(solicited_node(target))
}

/// The frame that asks who has `target`, from `mac`; `source` is an address of ours, or `None`.
pub(crate) fn question(source: Option<Ipv6Addr>, target: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let to = solicited_node(target);
    let from = source.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let mut message = vec![0; MESSAGE_BYTES];
    message[0] = ND_NEIGHBOR_SOLICIT;
    message[8..24].copy_from_slice(&target.octets());
    if source.is_some() {
        message.extend([OPTION_SOURCE_LINK_ADDRESS, 1]);
        message.extend(mac);
    }
    let checksum = !fold(total(from, to, &message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(ETHERNET_BYTES + HEADER_BYTES + message.len());
    frame.extend(multicast_mac(to));
    frame.extend(mac);
    frame.extend(ETHERTYPE_IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([PROTOCOL_ICMPV6, ND_HOP_LIMIT]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// The checksum's sum over a message (RFC 4443 section 2.3).
fn total(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u32 {
    let ends = (from.octets(), to.octets());
    pseudo(&ends.0, &ends.1, PROTOCOL_ICMPV6, message.len()) + sum(message)
}

/// Whose link-layer address this frame gives for `target`, if it is a valid advertisement (section 7.1.2).
pub(crate) fn holder(frame: &[u8], target: Ipv6Addr) -> Option<[u8; 6]> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_BYTES)?;
    let (header, rest) = packet.split_at_checked(HEADER_BYTES)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = rest.get(..length)?;
    let octets = |at: usize| -> Option<[u8; 16]> { header.get(at..at + 16)?.try_into().ok() };
    let (from, to) = (Ipv6Addr::from(octets(8)?), Ipv6Addr::from(octets(24)?));
    let advertisement = header[0] >> 4 == 6
        && header[6] == PROTOCOL_ICMPV6
        && header[7] == ND_HOP_LIMIT
        && message.len() >= MESSAGE_BYTES
        && message.len().is_multiple_of(2)
        && message[..2] == [ND_NEIGHBOR_ADVERT, 0]
        && message[8..24] == target.octets()
        && !(to.is_multicast() && message[4] & NA_FLAG_SOLICITED != 0)
        && fold(total(from, to, message)) == 0xffff;
    if !advertisement {
        return None;
    }
    let told = target_link_address(&message[MESSAGE_BYTES..])?;
    // Whoever is asked by multicast must tell it (section 4.4); for one that does not, the frame does.
    told.or_else(|| ethernet[6..12].try_into().ok())
}

/// The link-layer address among the options; `None` for options that make no sense.
fn target_link_address(mut options: &[u8]) -> Option<Option<[u8; 6]>> {
    let mut found = None;
    while let [kind, eighths, ..] = *options {
        let length = usize::from(eighths) * OPTION_BYTES;
        if length == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(length)?;
        if kind == OPTION_TARGET_LINK_ADDRESS && length == OPTION_BYTES {
            found = option[2..].try_into().ok();
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

    /// What a holder answers to a question from `to`, with these options.
    fn answer(to: Ipv6Addr, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; MESSAGE_BYTES];
        message[0] = ND_NEIGHBOR_ADVERT;
        message[4] = flags;
        message[8..24].copy_from_slice(&TARGET.octets());
        message.extend(options);
        let checksum = !fold(total(TARGET, to, &message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = question(None, TARGET, [4; 6]);
        frame.truncate(ETHERNET_BYTES + HEADER_BYTES);
        frame[18..20].copy_from_slice(&(message.len() as u16).to_be_bytes());
        frame[22..38].copy_from_slice(&TARGET.octets());
        frame[38..54].copy_from_slice(&to.octets());
        frame.extend(message);
        frame
    }

    fn told() -> Vec<u8> {
        [&[OPTION_TARGET_LINK_ADDRESS, 1][..], &THEIRS].concat()
    }

    #[test]
    fn both_forms_of_the_question_are_as_the_rfc_has_them() {
        for (source, length) in [(Some(OWN), 32), (None, 24)] {
            let frame = question(source, TARGET, MAC);
            assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
            assert_eq!(frame[6..14], [2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
            assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, length, 58, 255]);
            let (from, to) = (source.unwrap_or(Ipv6Addr::UNSPECIFIED), &frame[38..54]);
            assert_eq!(frame[22..38], from.octets());
            let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
            assert_eq!(to, group.octets());
            let message = &frame[54..];
            assert_eq!(message.len(), usize::from(length));
            assert_eq!(message[..2], [135, 0]);
            assert_eq!(message[8..24], TARGET.octets());
            assert_eq!(fold(total(from, group, message)), 0xffff);
            assert_eq!(message.get(24..26), source.map(|_| &[1, 1][..]));
            assert_eq!(holder(&frame, TARGET), None, "a question claims nothing");
        }
    }

    #[test]
    fn only_an_advertisement_of_the_address_is_heard() {
        let heard = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = answer(OWN, 0x60, &told());
            change(&mut frame);
            holder(&frame, TARGET)
        };
        assert_eq!(heard(&|_| {}), Some(THEIRS));
        assert_eq!(heard(&|f| f[21] = 254), None, "through a router");
        assert_eq!(heard(&|f| f[56] ^= 1), None, "damaged");
        assert_eq!(heard(&|f| f[20] = 17), None, "another protocol");
        let other = Ipv6Addr::from_bits(TARGET.to_bits() + 1);
        assert_eq!(holder(&answer(OWN, 0x60, &told()), other), None);
        let frame = answer(OWN, 0x60, &told());
        for cut in 0..frame.len() {
            assert_eq!(holder(&frame[..cut], TARGET), None, "{cut} bytes");
        }
    }

    #[test]
    fn answers_to_all_count_unless_they_contradict_themselves() {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(holder(&answer(all, 0x20, &told()), TARGET), Some(THEIRS));
        assert_eq!(holder(&answer(all, 0x60, &told()), TARGET), None);
    }

    #[test]
    fn options_are_walked_and_a_missing_one_leaves_the_frames_sender() {
        let after_another = [&[14, 1, 0, 0, 0, 0, 0, 0][..], &told()].concat();
        assert_eq!(
            holder(&answer(OWN, 0x60, &after_another), TARGET),
            Some(THEIRS)
        );
        assert_eq!(holder(&answer(OWN, 0x60, &[]), TARGET), Some([4; 6]));
        for broken in [
            &[2, 0, 2, 0, 0, 0, 0, 9][..],
            &[2, 2, 2, 0, 0, 0, 0, 9],
            &[2, 1],
        ] {
            assert_eq!(
                holder(&answer(OWN, 0x60, broken), TARGET),
                None,
                "{broken:?}"
            );
        }
    }
}
