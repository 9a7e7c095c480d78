// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): a pair of dimensions is a point in
// the plane, rotated about the origin by an angle that grows with the position.
#pragma once

void rotate(float* a, float* b, const float* cosines, const float* sines, int count) {
    int i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
        const Vec x = Vec::load(a + i), y = Vec::load(b + i);
        const Vec c = Vec::load(cosines + i), s = Vec::load(sines + i);
        sub(mul(x, c), mul(y, s)).store(a + i);
        add(mul(x, s), mul(y, c)).store(b + i);
    }
    for (; i < count; ++i) {
        const float x = a[i], y = b[i];
        a[i] = x * cosines[i] - y * sines[i];
        b[i] = x * sines[i] + y * cosines[i];
    }
}
