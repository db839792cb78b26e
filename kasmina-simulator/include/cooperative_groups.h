// As much of the toolkit's header as the kernels use.
#pragma once

namespace cooperative_groups {

class grid_group {
public:
    void sync() const { ::ksim::calls->grid_sync(); }
};

inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
