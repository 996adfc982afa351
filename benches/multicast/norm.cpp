// A file by NORM (RFC 5740) to a group, with the library of the Naval Research Laboratory: what benches/multicast.sh compares with.
//
//   norm send  OWN GROUP FILE RECEIVERS key=value...
//   norm hear  OWN GROUP FILE 0         key=value...
//
// OWN is the node's number; station n of the bench has 10.1.1.n. A sender ends when all RECEIVERS (numbers 2, 3, ...) have acknowledged
// the file; a receiver writes it in one piece and goes on answering. Keys, with what the library takes them for:
//   rate       bit/s of NORM messages, UDP and IPv4 not counted        (NormSetTxRate)
//   segment    bytes                                                   (NormStartSender)
//   data       segments in a block                                     (NormStartSender)
//   parity     parity segments computed for a block                    (NormStartSender)
//   auto       parity segments sent unasked behind every block         (NormSetAutoParity)
//   grtt       seconds                                                 (NormSetGrttEstimate)
//   probe      1: the round trip is measured                           (NormSetGrttProbingMode)
//   backoff    round trips over which answers are spread               (NormSetBackoffFactor)
//   robust     how often flushes are repeated                          (NormSetTxRobustFactor)
//   unicast    1: answers go to the sender alone                       (NormSetDefaultUnicastNack)
//   boundary   block or object: when losses are looked at              (NormSetDefaultRepairBoundary)
#include <normApi.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

int main(int argc, char** argv) {
    if (argc < 6) {
        std::fprintf(stderr, "see the top of norm.cpp\n");
        return 2;
    }
    const bool sends = std::string(argv[1]) == "send";
    const unsigned long own = std::strtoul(argv[2], nullptr, 10);
    const std::string group = argv[3], path = argv[4];
    const unsigned long receivers = std::strtoul(argv[5], nullptr, 10);
    std::map<std::string, std::string> keys = {
        {"rate", "62500"}, {"segment", "1424"}, {"data", "72"}, {"parity", "100"}, {"auto", "0"}, {"grtt", "0.8"},
        {"probe", "0"}, {"backoff", "1"}, {"robust", "20"}, {"unicast", "0"}, {"boundary", "block"}};
    for (int i = 6; i < argc; i++) {
        const std::string word = argv[i];
        keys[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    }
    const auto number = [&](const char* key) { return std::atof(keys[key].c_str()); };

    NormInstanceHandle instance = NormCreateInstance();
    NormSessionHandle session = NormCreateSession(instance, group.c_str(), 6003, own);
    NormSetMulticastInterface(session, "sat0");
    NormSetTTL(session, 1);
    NormSetGrttEstimate(session, number("grtt"));
    NormSetBackoffFactor(session, number("backoff"));
    NormSetGroupSize(session, receivers ? receivers : 10);
    NormSetTxRate(session, number("rate"));
    std::string bytes;
    NormObjectHandle object = NORM_OBJECT_INVALID;
    if (sends) {
        std::ifstream file(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(file), {});
        NormSetCongestionControl(session, false);
        NormSetGrttProbingMode(session, number("probe") != 0 ? NORM_PROBE_ACTIVE : NORM_PROBE_NONE);
        NormSetAutoParity(session, (unsigned char)number("auto"));
        NormSetTxRobustFactor(session, (int)number("robust"));
        for (unsigned long n = 0; n < receivers; n++) NormAddAckingNode(session, 2 + n);
        if (!NormStartSender(session, 1, 1 << 22, (UINT16)number("segment"), (UINT16)number("data"), (UINT16)number("parity")))
            return 1;
        object = NormDataEnqueue(session, bytes.data(), bytes.size());
        NormSetWatermark(session, object, true);
    } else {
        NormSetDefaultUnicastNack(session, number("unicast") != 0);
        NormSetDefaultSyncPolicy(session, NORM_SYNC_ALL);
        NormSetDefaultRepairBoundary(session, keys["boundary"] == "object" ? NORM_BOUNDARY_OBJECT : NORM_BOUNDARY_BLOCK);
        NormSetDefaultRxRobustFactor(session, -1);
        if (!NormStartReceiver(session, 1 << 22)) return 1;
    }
    std::printf("ready\n");
    std::fflush(stdout);
    NormEvent event;
    while (NormGetNextEvent(instance, &event)) {
        switch (event.type) {
        case NORM_TX_WATERMARK_COMPLETED:
            if (NormGetAckingStatus(session, NORM_NODE_ANY) == NORM_ACK_SUCCESS) {
                std::printf("acknowledged\n");
                NormStopSender(session);
                NormDestroyInstance(instance);
                return 0;
            }
            NormResetWatermark(session);
            break;
        case NORM_RX_OBJECT_COMPLETED: {
            std::ofstream(path + ".part", std::ios::binary)
                .write(NormDataAccessData(event.object), (std::streamsize)NormObjectGetSize(event.object));
            std::rename((path + ".part").c_str(), path.c_str());
            break;
        }
        default: break;
        }
    }
    return 1;
}
