#include "testing.h"

namespace sparsebert {
namespace {

const KernelTest kThreadsTest = {"threads", test_threads, nullptr};

}  // namespace

const std::vector<const KernelTest*> kTests = {
    &kInt8LinearTest,    &kInt8LookupTest, &kInt8TilesTest,  &kInt8RowsTest,
    &kInt8AttentionTest, &kLinearTest,     &kBf16LinearTest, &kRowsTest,
    &kAttentionTest,     &kEncoderTest,    &kThreadsTest};

}  // namespace sparsebert
